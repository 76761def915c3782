"""Train a multilayer perceptron on the MNIST digits, and say how well it reads the test images."""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

import nnlite as nn


def main():
    """Run the command line; return its exit status."""
    options = parse_arguments()
    nn.seed(options.seed)
    try:
        train, test = nn.datasets.mnist(options.data_dir, download=options.download)
    except (ValueError, OSError, ImportError) as error:
        return fail(error)

    model = build_model(options.hidden)
    parameters = sum(parameter.size for parameter in model.parameters())
    say(options, f"{model}\n{parameters:,} parameters, {len(train[0]):,} training images")

    status = 0
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # the loss says it better
            train_model(model, train, test, options)
    except KeyboardInterrupt:
        print("\ninterrupted; as trained so far:", file=sys.stderr)
        status = 130
    except ValueError as error:  # the loss is not finite any more
        return fail(f"{error} (try a --lr below {options.lr:g})")

    print(f"test accuracy {accuracy_on(test, model):.2%}")
    if options.save:
        try:
            nn.save(model, options.save)
        except OSError as error:
            return fail(error)
        say(options, f"parameters saved to {options.save}")
    return status


def build_model(hidden):
    """Return a perceptron with hidden layers of the given sizes."""
    model = nn.Sequential(nn.Flatten())
    sizes = [28 * 28, *hidden]
    for in_features, out_features in pairwise(sizes):
        model.extend([nn.Linear(in_features, out_features), nn.ReLU()])
    return model.append(nn.Linear(sizes[-1], 10))


def train_model(model, train, test, options):
    """Train with SGD; the learning rate falls to zero in a straight line."""
    loader = nn.DataLoader(*train, batch_size=options.batch_size, shuffle=True)
    loss = nn.CrossEntropy()
    optimizer = nn.SGD(
        model.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay
    )
    step, steps = 0, options.epochs * len(loader)
    for epoch in range(1, options.epochs + 1):
        name = f"epoch {epoch}/{options.epochs}"
        progress = tqdm(loader, name, leave=False, disable=options.quiet or None)
        seen = total_loss = correct = 0
        for images, labels in progress:
            optimizer.lr = options.lr * (1 - step / steps)
            logits = model(images)
            value = loss(logits, labels)
            optimizer.zero_grad()
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()

            step += 1
            seen += len(labels)
            total_loss += value * len(labels)
            correct += (logits.argmax(axis=1) == labels).sum()
            if step % 20 == 0:
                progress.set_postfix_str(f"loss {total_loss / seen:.4f}, {correct / seen:.2%}")
        say(
            options,
            f"{name}: loss {total_loss / seen:.4f}, accuracy {correct / seen:.2%}, "
            f"test accuracy {accuracy_on(test, model):.2%}",
        )


def accuracy_on(data, model):
    """Return the share of the images of `data` that the model classifies rightly."""
    images, labels = data
    return nn.accuracy(nn.predict(model, images), labels)


def say(options, text):
    """Print `text` unless asked to be quiet."""
    if not options.quiet:
        print(text, flush=True)


def fail(reason):
    """Print why the command failed, in one line; return its exit status."""
    print(f"train_mnist.py: error: {reason}", file=sys.stderr)
    return 1


def parse_arguments():
    """Return the options of the command line, or end with a line that says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_argument_group("network and training")
    group.add_argument(
        "--hidden", type=at_least(1), nargs="*", default=[256, 128], metavar="SIZE",
        help="sizes of the hidden layers; without a size, a linear classifier (256 128)",
    )  # fmt: skip
    add_number(group, "--epochs", 1, 5, "passes over the training images")
    add_number(group, "--batch-size", 1, 128, "images in a step")
    add_number(group, "--lr", 0.0, 0.1, "learning rate of the first step")
    add_number(group, "--momentum", 0.0, 0.9, "momentum of SGD")
    add_number(group, "--weight-decay", 0.0, 0.0, "factor of the L2 penalty")
    add_number(group, "--seed", 0, 0, "the same seed gives the same numbers")
    group = parser.add_argument_group("files and output")
    group.add_argument("--data-dir", metavar="DIR", help="read MNIST here, not the bundled files")
    group.add_argument("--download", action="store_true", help="put it there with torchvision")
    group.add_argument("--save", type=Path, metavar="FILE", help="write the parameters (.npz)")
    group.add_argument("--quiet", action="store_true", help="print the final accuracy alone")

    options = parser.parse_args()
    if options.download and not options.data_dir:
        parser.error("--download needs --data-dir")
    if options.save and options.save.suffix != ".npz":
        parser.error(f"--save: the name of the file has to end in .npz, got {options.save}")
    if options.save and not options.save.absolute().parent.is_dir():
        parser.error(f"--save: there is no folder {options.save.absolute().parent}")
    return options


def add_number(group, name, minimum, default, text):
    """Add an option that takes a number of at least `minimum`, of the same type."""
    kind = at_least(minimum)
    group.add_argument(name, type=kind, default=default, metavar="N", help=f"{text} ({default})")


def at_least(minimum):
    """Return a converter for argparse: text to a finite number of the type of `minimum`."""

    def convert(text):
        value = type(minimum)(text)
        if not minimum <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {text}")
        return value

    convert.__name__ = type(minimum).__name__  # for "invalid int value"
    return convert


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before or after the training
        sys.exit(130)
