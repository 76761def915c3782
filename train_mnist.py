"""Train a network on the MNIST digits and report its accuracy on the test images."""

import argparse
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import nnlite as nn

# ---- the story: data, network, optimizer, schedule, training, test ----


def run(options):
    """Train and test a network as the options say; return the exit status."""
    nn.seed(options.seed)
    train, test = nn.datasets.mnist(options.data_dir, download=options.download)
    model = NETWORKS[options.model](options)
    parameters = sum(parameter.size for parameter in model.parameters())
    say(options, f"{model}\n{parameters:,} parameters, {len(train[0]):,} training images")

    status, history = 0, nn.History()
    try:
        fit(model, train, test, history, options)
    except KeyboardInterrupt:
        status = report_interrupt(options)
    if options.silent:
        return status

    images, labels = test
    predict = nn.compile(model) if options.compile else model
    print(f"test accuracy {nn.accuracy(nn.predict(predict, images), labels):.2%}")
    write_results(model, history, images, labels, options)
    return status


def fit(model, train, test, history, options):
    """Train the model; the figures of each epoch go into the history."""
    augmentation = nn.RandomAffine(degrees=10, shift=2, fill=train[0].min())  # black background
    optimizer = OPTIMIZERS[options.optimizer](model.parameters(), options)
    if options.distributed:
        from nnlite.interop import mpi

        optimizer = mpi.DistributedOptimizer(optimizer)
    loader = nn.DataLoader(
        *train,
        batch_size=options.batch_size,
        shuffle=True,
        transform=augmentation if options.augment else None,
        shard=optimizer.processes,
    )
    nn.fit(
        model,
        nn.CrossEntropy(),
        optimizer,
        loader,
        validation=test,
        metrics=[nn.accuracy],
        epochs=options.epochs,
        schedule=SCHEDULES[options.schedule](optimizer, options.epochs * len(loader)),
        schedule_every="step",
        max_grad_norm=1.0 if options.model == "rnn" else None,  # gradients through 28 steps
        checkpoint=options.checkpoint and nn.Checkpoint(options.checkpoint, every_batches=100),
        resume=options.resume,
        compile=options.compile,
        history=history,
        progress=not options.quiet,
    )


# ---- the networks: each takes images (N, 1, 28, 28) and returns ten logits ----


def mlp(options):
    """Return a multilayer perceptron."""
    sizes = [28 * 28, *options.hidden]
    model = nn.Sequential(nn.Flatten())
    for in_features, out_features in pairwise(sizes):
        model.extend([nn.Linear(in_features, out_features), nn.ReLU()])
    return model.append(nn.Linear(sizes[-1], 10))


def cnn(options):
    """Return a convolutional network."""
    model = nn.Sequential()
    for in_channels, out_channels in ((1, 16), (16, 32)):
        for channels in (in_channels, out_channels):
            model.append(nn.Conv2d(channels, out_channels, kernel_size=3, bias=False))
            model.extend([nn.BatchNorm2d(out_channels), nn.ReLU()])
        model.append(nn.MaxPool2d(2))
    return model.extend([nn.Flatten(), nn.Linear(32 * 4 * 4, 10)])


def rnn(options):
    """Return an LSTM that reads an image row by row."""
    return nn.Sequential(nn.Reshape(28, 28), nn.LSTM(28, 128, outputs="last"), nn.Linear(128, 10))


NETWORKS = {"mlp": mlp, "cnn": cnn, "rnn": rnn}

# From the parameters and the options to an optimizer, which has the highest learning rate.
OPTIMIZERS = {
    "sgd": lambda p, o: nn.SGD(p, o.lr, o.momentum, weight_decay=o.weight_decay),
    "adam": lambda p, o: nn.Adam(p, o.lr, weight_decay=o.weight_decay),
    "adamw": lambda p, o: nn.AdamW(p, o.lr, weight_decay=o.weight_decay),
    "rmsprop": lambda p, o: nn.RMSprop(p, o.lr, weight_decay=o.weight_decay),
}

# From the optimizer and the number of steps to the learning-rate schedule.
SCHEDULES = {
    "constant": lambda optimizer, steps: None,
    "linear": lambda optimizer, steps: nn.LinearLR(optimizer, 1.0, 0.0, steps),
    "cosine": lambda optimizer, steps: nn.CosineAnnealingLR(optimizer, steps),
    "onecycle": lambda optimizer, steps: nn.OneCycleLR(optimizer, optimizer.lr, steps),
}


# ---- the command line ----

# The options of each network that are not given on the command line.
DEFAULTS = {
    "mlp": {"optimizer": "sgd", "schedule": "linear", "epochs": 5},
    "cnn": {"optimizer": "adamw", "schedule": "onecycle", "epochs": 5},
    "rnn": {"optimizer": "adamw", "schedule": "onecycle", "epochs": 5},
}
LEARNING_RATES = {"sgd": 0.1, "adam": 0.003, "adamw": 0.003, "rmsprop": 0.001}


def main():
    """Run the command line; return its exit status."""
    options = parse_arguments()
    try:
        return run(options)
    except (ValueError, OSError, ImportError) as error:
        if options.distributed:
            raise  # the other processes have to know
        cure = f" (try a --lr below {options.lr:g})" if "diverged" in str(error) else ""
        print(f"train_mnist.py: error: {error}{cure}", file=sys.stderr)
        return 1


def say(options, text):
    """Print `text` unless asked to be quiet, or if another process prints it."""
    if not options.quiet and not options.silent:
        print(text, flush=True)


def report_interrupt(options):
    """Print how to continue after Ctrl-C; return the exit status."""
    if options.silent:
        return 130
    print("\ninterrupted; as trained so far:", file=sys.stderr)
    if options.checkpoint and options.checkpoint.exists():
        print(f"--resume goes on from {options.checkpoint}", file=sys.stderr)
    return 130


def write_results(model, history, images, labels, options):
    """Write the files that the options ask for."""
    if options.save:
        nn.save(model, options.save)
        say(options, f"parameters saved to {options.save}")
    if options.plot:
        nn.plot_report(model, history, images, labels).savefig(options.plot, dpi=100)
        say(options, f"pictures saved to {options.plot}")
    if options.page:
        nn.to_html(model, options.page, input_shape=images.shape[1:])
        say(options, f"page saved to {options.page}; open it in a browser and draw")


def parse_arguments():
    """Return the options of the command line, or exit with a line that says what is wrong."""
    parser = build_parser()
    options = parser.parse_args()
    check_options(parser, options)
    if options.hidden is None:
        options.hidden = [256, 128]
    for name, default in DEFAULTS[options.model].items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if options.lr is None:
        options.lr = LEARNING_RATES[options.optimizer]
    if options.weight_decay is None:
        options.weight_decay = 0.01 if options.optimizer == "adamw" else 0.0
    options.silent = False  # whether another process prints
    if options.distributed:
        from nnlite.interop import mpi

        options.silent = mpi.shard().rank > 0
    return options


def build_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Defaults of --optimizer, --schedule and --epochs: "
        + "; ".join(
            f"{model}: {given['optimizer']}, {given['schedule']}, {given['epochs']} epochs"
            for model, given in DEFAULTS.items()
        ),
    )
    group = parser.add_argument_group("network and training")
    add = group.add_argument
    add("--model", choices=NETWORKS, default="mlp",
        help="multilayer perceptron, convolutional network, or LSTM that reads an image row by "
        "row (mlp)")  # fmt: skip
    add("--hidden", type=at_least(1), nargs="*", metavar="SIZE",
        help="sizes of the hidden layers of the mlp; no size makes a linear classifier "
        "(256 128)")  # fmt: skip
    add("--optimizer", choices=OPTIMIZERS, help="optimizer")
    add("--schedule", choices=SCHEDULES, help="learning-rate schedule over the steps of the run")
    add("--augment", action="store_true", help="augment with small random rotations and shifts")
    add_number(group, "--epochs", 1, None, "number of passes over the training images")
    add_number(group, "--batch-size", 1, 128, "number of images in a step")
    rates = ", ".join(f"{name} {lr:g}" for name, lr in LEARNING_RATES.items())
    add_number(group, "--lr", 0.0, None, f"highest learning rate ({rates})")
    add_number(group, "--momentum", 0.0, 0.9, "momentum factor of sgd")
    add_number(group, "--weight-decay", 0.0, None, "weight decay (adamw 0.01, others 0)")
    add_number(group, "--seed", 0, 0, "random seed; the same seed gives the same result")
    add("--distributed", action="store_true",
        help="train with all processes that mpiexec has started; each takes its part of every "
        "batch")  # fmt: skip
    add("--compile", action="store_true", help="compile the training steps to machine code")
    group = parser.add_argument_group("files and output")
    add = group.add_argument
    add("--data-dir", metavar="DIR", help="folder of MNIST, in place of the bundled files")
    add("--download", action="store_true", help="download MNIST to --data-dir with torchvision")
    add("--checkpoint", type=Path, metavar="FILE",
        help="save a checkpoint every 100 batches (.npz)")  # fmt: skip
    add("--resume", action="store_true", help="continue from the checkpoint, if the file exists")
    add("--save", type=Path, metavar="FILE", help="save the parameters (.npz, .safetensors)")
    add("--plot", type=Path, metavar="FILE", help="plot the training run (.png, .svg, .pdf)")
    add("--page", type=Path, metavar="FILE", help="write the network as a web page (.html)")
    add("--quiet", action="store_true", help="print only the test accuracy")
    return parser


def check_options(parser, options):
    """Exit with a line that says what is wrong if some options do not fit together."""
    if options.download and not options.data_dir:
        parser.error("--download needs --data-dir")
    if options.resume and not options.checkpoint:
        parser.error("--resume needs --checkpoint")
    if options.hidden is not None and options.model != "mlp":
        parser.error(f"--hidden is for --model mlp, not {options.model}")
    if options.page and options.model == "rnn":
        parser.error("--page is for --model mlp or cnn: the page has no form for an LSTM")
    check_file(parser, "--checkpoint", options.checkpoint, ".npz")
    check_file(parser, "--save", options.save, ".npz", ".safetensors")
    check_file(parser, "--plot", options.plot, ".png", ".svg", ".pdf")
    check_file(parser, "--page", options.page, ".html")
    if options.save and options.save.suffix == ".safetensors":
        check_package(parser, "--save to .safetensors", "safetensors")
    if options.plot:
        check_package(parser, "--plot", "matplotlib")
    if options.distributed:
        check_package(parser, "--distributed", "mpi4py")


def check_file(parser, name, path, *endings):
    """Exit with a line that says what is wrong if `path` cannot be written."""
    if path and path.suffix not in endings:
        listed = " or ".join(endings)
        parser.error(f"{name}: the name of the file has to end in {listed}, got {path}")
    if path and not path.absolute().parent.is_dir():
        parser.error(f"{name}: there is no folder {path.absolute().parent}")


def check_package(parser, option, package):
    """Exit with a line that says how to install the package of an option if it is missing."""
    if importlib.util.find_spec(package) is None:
        parser.error(f"{option} needs {package}; install it with: pip install {package}")


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
