"""Train a network on the MNIST digits, and say how well it reads the test images."""

import argparse
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import nnlite as nn

# What each network is trained with, unless the options say otherwise.
DEFAULTS = {
    "mlp": {"optimizer": "sgd", "schedule": "linear", "epochs": 5},
    "cnn": {"optimizer": "adamw", "schedule": "onecycle", "epochs": 5},
    "rnn": {"optimizer": "adamw", "schedule": "onecycle", "epochs": 5},
}
LEARNING_RATES = {"sgd": 0.1, "adam": 0.003, "adamw": 0.003, "rmsprop": 0.001}
SCHEDULES = ("constant", "linear", "cosine", "onecycle")


def main():
    """Run the command line; return its exit status."""
    options = parse_arguments()
    nn.seed(options.seed)
    try:
        train, test = nn.datasets.mnist(options.data_dir, download=options.download)
    except (ValueError, OSError, ImportError) as error:
        return fail(error)

    model = build_model(options)
    parameters = sum(parameter.size for parameter in model.parameters())
    say(options, f"{model}\n{parameters:,} parameters, {len(train[0]):,} training images")

    status, history = 0, nn.History()
    try:
        train_model(model, train, test, history, options)
    except KeyboardInterrupt:
        print("\ninterrupted; as trained so far:", file=sys.stderr)
        if options.checkpoint and options.checkpoint.exists():
            print(f"--resume goes on from {options.checkpoint}", file=sys.stderr)
        status = 130
    except OSError as error:
        return fail(error)
    except ValueError as error:
        cure = f" (try a --lr below {options.lr:g})" if "diverged" in str(error) else ""
        return fail(f"{error}{cure}")

    images, labels = test
    print(f"test accuracy {nn.accuracy(nn.predict(model, images), labels):.2%}")
    try:
        if options.save:
            nn.save(model, options.save)
            say(options, f"parameters saved to {options.save}")
        if options.plot:
            nn.plot_report(model, history, images, labels).savefig(options.plot, dpi=100)
            say(options, f"pictures saved to {options.plot}")
        if options.page:
            nn.to_html(model, options.page, input_shape=images.shape[1:])
            say(options, f"page saved to {options.page}; open it in a browser and draw")
    except (OSError, ValueError) as error:
        return fail(error)
    return status


def build_model(options):
    """Return the network that the options ask for; its outputs are ten logits."""
    if options.model == "mlp":
        model = nn.Sequential(nn.Flatten())
        sizes = [28 * 28, *options.hidden]
        for in_features, out_features in pairwise(sizes):
            model.extend([nn.Linear(in_features, out_features), nn.ReLU()])
        return model.append(nn.Linear(sizes[-1], 10))
    if options.model == "rnn":  # it reads an image row by row
        return nn.Sequential(
            nn.Reshape(28, 28), nn.LSTM(28, 128, outputs="last"), nn.Linear(128, 10)
        )
    model = nn.Sequential()
    for in_channels, out_channels in ((1, 16), (16, 32)):
        for channels in (in_channels, out_channels):
            model.extend(
                [
                    nn.Conv2d(channels, out_channels, kernel_size=3, bias=False),
                    nn.BatchNorm2d(out_channels),
                    nn.ReLU(),
                ]
            )
        model.append(nn.MaxPool2d(2))
    return model.extend([nn.Flatten(), nn.Linear(32 * 4 * 4, 10)])


def train_model(model, train, test, history, options):
    """Train the model; the figures of each epoch go into the history."""
    transform = None
    if options.augment:  # the digits are white on black, so that black is the least value
        transform = nn.RandomAffine(degrees=10, shift=2, fill=train[0].min())
    loader = nn.DataLoader(*train, batch_size=options.batch_size, shuffle=True, transform=transform)
    optimizer = build_optimizer(model, options)
    checkpoint = None
    if options.checkpoint:
        checkpoint = nn.Checkpoint(options.checkpoint, every_batches=100)
    nn.fit(
        model,
        nn.CrossEntropy(),
        optimizer,
        loader,
        validation=test,
        metrics=[nn.accuracy],
        epochs=options.epochs,
        schedule=build_schedule(optimizer, options.epochs * len(loader), options),
        schedule_every="step",
        max_grad_norm=1.0 if options.model == "rnn" else None,  # through 28 steps it may explode
        checkpoint=checkpoint,
        resume=options.resume,
        history=history,
        progress=not options.quiet,
    )


def build_optimizer(model, options):
    """Return the optimizer that the options ask for."""
    parameters, lr, decay = model.parameters(), options.lr, options.weight_decay
    if options.optimizer == "sgd":
        return nn.SGD(parameters, lr, options.momentum, weight_decay=decay)
    kind = {"adam": nn.Adam, "adamw": nn.AdamW, "rmsprop": nn.RMSprop}[options.optimizer]
    return kind(parameters, lr, weight_decay=decay)


def build_schedule(optimizer, steps, options):
    """Return how the learning rate changes over all steps, or None where it does not."""
    if options.schedule == "linear":
        return nn.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    if options.schedule == "cosine":
        return nn.CosineAnnealingLR(optimizer, T_max=steps)
    if options.schedule == "onecycle":
        return nn.OneCycleLR(optimizer, max_lr=options.lr, total_steps=steps)
    return None


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
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Without --optimizer, --schedule and --epochs, a network is trained with: "
        + "; ".join(
            f"{model}: {given['optimizer']}, {given['schedule']}, {given['epochs']} epochs"
            for model, given in DEFAULTS.items()
        ),
    )
    group = parser.add_argument_group("network and training")
    add = group.add_argument
    add("--model", choices=DEFAULTS, default="mlp",
        help="a multilayer perceptron, a convolutional network, or an LSTM that reads an image "
        "row by row (mlp)")  # fmt: skip
    add("--hidden", type=at_least(1), nargs="*", metavar="SIZE",
        help="sizes of the hidden layers of the mlp; without a size, a linear classifier "
        "(256 128)")  # fmt: skip
    add("--optimizer", choices=LEARNING_RATES, help="what updates the parameters")
    add("--schedule", choices=SCHEDULES, help="how the learning rate changes from step to step")
    add("--augment", action="store_true", help="turn and shift each image at random, each time")
    add_number(group, "--epochs", 1, None, "passes over the training images")
    add_number(group, "--batch-size", 1, 128, "images in a step")
    rates = ", ".join(f"{name} {lr:g}" for name, lr in LEARNING_RATES.items())
    add_number(group, "--lr", 0.0, None, f"the highest learning rate ({rates})")
    add_number(group, "--momentum", 0.0, 0.9, "momentum of SGD")
    add_number(group, "--weight-decay", 0.0, None, "weight decay (adamw 0.01, else 0)")
    add_number(group, "--seed", 0, 0, "the same seed gives the same numbers")
    group = parser.add_argument_group("files and output")
    add = group.add_argument
    add("--data-dir", metavar="DIR", help="read MNIST here, not the bundled files")
    add("--download", action="store_true", help="put it there with torchvision")
    add("--checkpoint", type=Path, metavar="FILE", help="save all of the run now and then (.npz)")
    add("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    add("--save", type=Path, metavar="FILE", help="write the parameters (.npz, .safetensors)")
    add("--plot", type=Path, metavar="FILE", help="draw the run (.png, .svg, .pdf)")
    add("--page", type=Path, metavar="FILE", help="write the network as a web page (.html)")
    add("--quiet", action="store_true", help="print the final accuracy alone")

    options = parser.parse_args()
    if options.download and not options.data_dir:
        parser.error("--download needs --data-dir")
    if options.resume and not options.checkpoint:
        parser.error("--resume needs --checkpoint")
    if options.hidden is not None and options.model != "mlp":
        parser.error(f"--hidden is for --model mlp, not {options.model}")
    check_file(parser, "--checkpoint", options.checkpoint, ".npz")
    check_file(parser, "--save", options.save, ".npz", ".safetensors")
    check_file(parser, "--plot", options.plot, ".png", ".svg", ".pdf")
    check_file(parser, "--page", options.page, ".html")
    if options.page and options.model == "rnn":
        parser.error("--page is for --model mlp or cnn: the page has no form for an LSTM")
    if options.save and options.save.suffix == ".safetensors":
        check_package(parser, "--save to .safetensors", "safetensors", extra="safetensors")
    if options.plot:
        check_package(parser, "--plot", "matplotlib", extra="plot")

    if options.hidden is None:
        options.hidden = [256, 128]
    for name, default in DEFAULTS[options.model].items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if options.lr is None:
        options.lr = LEARNING_RATES[options.optimizer]
    if options.weight_decay is None:
        options.weight_decay = 0.01 if options.optimizer == "adamw" else 0.0
    return options


def check_file(parser, name, path, *endings):
    """End with a line that says what is wrong if `path` cannot be written."""
    if path and path.suffix not in endings:
        listed = " or ".join(endings)
        parser.error(f"{name}: the name of the file has to end in {listed}, got {path}")
    if path and not path.absolute().parent.is_dir():
        parser.error(f"{name}: there is no folder {path.absolute().parent}")


def check_package(parser, option, package, extra):
    """End with a line that says how to install what an option needs if it is missing."""
    if importlib.util.find_spec(package) is None:
        parser.error(f"{option} needs {package}; install it with: pip install nnlite[{extra}]")


def add_number(group, name, minimum, default, text):
    """Add an option that takes a number of at least `minimum`, of the same type."""
    if default is not None:
        text += f" ({default})"
    group.add_argument(name, type=at_least(minimum), default=default, metavar="N", help=text)


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
