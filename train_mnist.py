"""Train a network to read handwritten digits, and test it on images that it has not seen."""

import argparse
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

import nnlite as nn

# ---- the story: data, network, optimizer, schedule, training, test ----


def run(options):
    """Train and test a network as the options say; return the exit status."""
    nn.seed(options.seed)
    model = NETWORKS[options.model](options)
    parameters = sum(parameter.size for parameter in model.parameters())
    status, history = 0, nn.History()
    if options.load:
        try:
            model.load_state_dict(nn.load_state(options.load))
        except ValueError as error:
            raise ValueError(f"--load: {error}; is it of another --model or --hidden?") from None
        say(options, f"{model}\n{parameters:,} parameters from {options.load}")
    if options.load and options.read:
        read(model, options.read)
        return status

    train, (images, labels) = nn.datasets.mnist(options.data_dir, download=options.download)
    if not options.load:
        train, validation = split(train)
        sizes = f"{len(train[0]):,} training images, {len(validation[0]):,} for validation"
        say(options, f"{model}\n{parameters:,} parameters, {sizes}")
        try:
            fit(model, train, validation, history, options)
        except KeyboardInterrupt:
            status = report_interrupt(options)
        if options.silent:
            return status

    # Ctrl-C may have interrupted the compilation.
    predict = nn.compile(model) if options.compile and not status else model
    print(f"test accuracy {nn.accuracy(nn.predict(predict, images), labels):.2%}")
    write_results(model, history, images, labels, options)
    return status


def split(train):
    """Return the training set without its last twelfth, 5,000 images of MNIST, and this part."""
    held_out = len(train[0]) // 12
    return [array[:-held_out] for array in train], tuple(array[-held_out:] for array in train)


def fit(model, train, validation, history, options):
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
        validation=validation,
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

# Options that are not given on the command line.
OPTIMIZER, SCHEDULE = "adamw", "onecycle"
EPOCHS = {"mlp": 3, "cnn": 5, "rnn": 5}
# Options that a network has no use for that is loaded and not trained.
TRAINING = (
    "optimizer", "schedule", "augment", "epochs", "batch_size", "lr", "momentum", "weight_decay",
    "seed", "distributed", "checkpoint", "resume", "plot",
)  # fmt: skip
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
    """Write the files that the options ask for, and read the image that they name."""
    if options.save:
        nn.save(model, options.save)
        say(options, f"parameters saved to {options.save}")
    if options.plot:
        nn.plot_report(model, history, images, labels).savefig(options.plot, dpi=100)
        say(options, f"pictures saved to {options.plot}")
    if options.page:
        nn.to_html(model, options.page, input_shape=images.shape[1:])
        say(options, f"page saved to {options.page}; open it in a browser and draw")
    if options.read:
        read(model, options.read)
    if not (options.load or options.save or options.plot or options.page or options.read):
        say(options, "add --plot run.png to see how it went, or --save model.npz to keep it")


# ---- an image of one's own ----


def read(model, path):
    """Print which digit the model sees in an image file."""
    image = (as_mnist(path) - 0.1307) / 0.3081  # as nn.datasets.mnist standardises images
    logits = nn.predict(model, image[None, None].astype(np.float32))
    (probabilities,) = nn.Softmax()(logits)
    first, second = probabilities.argsort()[:-3:-1]
    print(f"{path}: {first} ({probabilities[first]:.1%}), "
          f"or else {second} ({probabilities[second]:.1%})")  # fmt: skip


def as_mnist(path):
    """Return the image of a digit as MNIST has them: white on black, 20 pixels high, centred."""
    from matplotlib.image import imread

    try:
        image = np.asarray(imread(path), np.float64)
    except SyntaxError as error:  # of a damaged file
        raise ValueError(f"{path}: {error}") from None
    image /= 1 if image.max() <= 1 else 255
    grey = image if image.ndim == 2 else image[..., :3].mean(axis=2)
    if image.ndim == 3 and image.shape[2] in (2, 4):  # transparent is white
        grey = 1 - image[..., -1] * (1 - grey)
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(edge))
    if ink.max() < 0.1:
        raise ValueError(f"{path}: the image is blank")
    ink[ink < 0.2 * ink.max()] = 0
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / ink.max()
    scale = 20 / max(ink.shape)
    height, width = (max(1, round(scale * length)) for length in ink.shape)
    small = averages(ink.shape[0], height) @ ink @ averages(ink.shape[1], width).T
    # MNIST's digits have their centre of mass in the middle of pixel 14.
    top, left = (
        int(np.clip(round(14.5 - place), 0, 28 - length))
        for place, length in zip(centre_of_mass(small), small.shape, strict=True)
    )
    digit = np.zeros((28, 28))
    digit[top : top + height, left : left + width] = small
    return digit


def averages(length, parts):
    """Return the matrix (parts, length) that averages a line over equal parts."""
    edges = np.linspace(0, length, parts + 1)[:, None]
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0) * parts / length


def centre_of_mass(image):
    """Return the row and the column."""
    return [
        np.average(np.arange(length) + 0.5, weights=image.sum(axis=1 - axis))
        for axis, length in enumerate(image.shape)
    ]


# ---- the options ----


def parse_arguments():
    """Return the options of the command line, or exit with a line that says what is wrong."""
    parser = build_parser()
    options = parser.parse_args()
    check_options(parser, options)
    if options.resume and options.seed is not None and options.checkpoint.exists():
        print(f"--seed: the random numbers are those of the run in {options.checkpoint}")
    fill_in(options, optimizer=OPTIMIZER, schedule=SCHEDULE, epochs=EPOCHS[options.model])
    fill_in(
        options,
        lr=LEARNING_RATES[options.optimizer],
        momentum=0.9,
        weight_decay=0.01 if options.optimizer == "adamw" else 0.0,
        hidden=[256, 128],
        batch_size=128,
        seed=0,
    )
    options.silent = False  # whether another process prints
    if options.distributed:
        from nnlite.interop import mpi

        options.silent = mpi.shard().rank > 0
    return options


def fill_in(options, **defaults):
    """Set the options that the command line does not have."""
    for name, default in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, default)


def build_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Without options, a perceptron trains for {EPOCHS['mlp']} epochs.",
    )
    group = parser.add_argument_group("network")
    add = group.add_argument
    add("--model", choices=NETWORKS, default="mlp",
        help="mlp: fully connected layers (default); cnn: convolutional; rnn: an LSTM that reads "
        "an image row by row")  # fmt: skip
    add("--hidden", type=at_least(1), nargs="*", metavar="SIZE",
        help="sizes of the hidden layers of the mlp, such as 256 128 (default); without a size, a "
        "linear classifier")  # fmt: skip
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--optimizer", choices=OPTIMIZERS, help=f"rule that updates the weights ({OPTIMIZER})")
    add("--schedule", choices=SCHEDULES,
        help=f"how the learning rate changes during the run ({SCHEDULE})")  # fmt: skip
    add(
        "--augment",
        action="store_const",
        const=True,
        help="rotate and shift the training images a little, at random",
    )
    epochs = ", ".join(f"{model} {count}" for model, count in EPOCHS.items())
    add_number(group, "--epochs", 1, f"number of passes over the training images ({epochs})")
    add_number(group, "--batch-size", 1, "number of images in a step (128)")
    rates = ", ".join(f"{name} {lr:g}" for name, lr in LEARNING_RATES.items())
    add_number(group, "--lr", 0.0, f"highest learning rate ({rates})")
    add_number(group, "--momentum", 0.0, "momentum factor of sgd (0.9)")
    add_number(group, "--weight-decay", 0.0, "weight decay (adamw 0.01, others 0)")
    add_number(group, "--seed", 0, "random seed (0)")
    add("--distributed", action="store_true",
        help="train with all processes that mpiexec has started; each takes a part of every "
        "batch")  # fmt: skip
    add("--compile", action="store_true", help="compile the training steps to machine code")
    add("--checkpoint", type=Path, metavar="FILE",
        help="save the state of the run every 100 batches (.npz)")  # fmt: skip
    add("--resume", action="store_true",
        help="continue from the checkpoint, if the file exists")  # fmt: skip
    group = parser.add_argument_group("files and output")
    add = group.add_argument
    add("--load", type=Path, metavar="FILE",
        help="do not train: test a network that --save has written")  # fmt: skip
    add("--read", type=Path, metavar="FILE",
        help="print which digit an image file shows (.png and others)")  # fmt: skip
    add("--save", type=Path, metavar="FILE", help="save the parameters (.npz, .safetensors)")
    add("--plot", type=Path, metavar="FILE",
        help="draw learning curves, mistakes and weights (.png, .svg, .pdf)")  # fmt: skip
    add("--page", type=Path, metavar="FILE", help="write the network as a web page (.html)")
    add("--data-dir", metavar="DIR", help="folder of MNIST, in place of the bundled files")
    add("--download", action="store_true", help="download MNIST to --data-dir with torchvision")
    add("--quiet", action="store_true", help="print only the test accuracy")
    return parser


def check_options(parser, options):
    """Exit with a line that says what is wrong if some options do not fit together."""
    if options.download and not options.data_dir:
        parser.error("--download needs --data-dir")
    for name in TRAINING:
        if options.load and getattr(options, name) not in (None, False):
            parser.error(f"--{name.replace('_', '-')} is for training; --load does not train")
    if options.resume and not options.checkpoint:
        parser.error("--resume needs --checkpoint")
    if options.checkpoint and options.checkpoint.exists() and not options.resume:
        parser.error(
            f"--checkpoint: {options.checkpoint} exists already; add --resume to continue that "
            f"run, or name another file"
        )
    if options.hidden is not None and options.model != "mlp":
        parser.error(f"--hidden is for --model mlp, not {options.model}")
    optimizer = options.optimizer or OPTIMIZER
    if options.momentum is not None and optimizer != "sgd":
        parser.error(f"--momentum is for --optimizer sgd, not {optimizer}")
    if options.page and options.model == "rnn":
        parser.error("--page is for --model mlp or cnn: the page has no form for an LSTM")
    check_file(parser, "--checkpoint", options.checkpoint, ".npz")
    check_file(parser, "--save", options.save, ".npz", ".safetensors")
    check_file(parser, "--plot", options.plot, ".png", ".svg", ".pdf")
    check_file(parser, "--page", options.page, ".html")
    for name, path in (("--load", options.load), ("--read", options.read)):
        if path and not path.is_file():
            parser.error(f"{name}: there is no file {path}")
    for name, path in (("--save to", options.save), ("--load from", options.load)):
        if path and path.suffix == ".safetensors":
            check_package(parser, f"{name} .safetensors", "safetensors")
    for name in ("plot", "read"):
        if getattr(options, name):
            check_package(parser, f"--{name}", "matplotlib")
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


def add_number(group, name, minimum, text):
    """Add an option that takes a number of at least `minimum`, of the same type."""
    group.add_argument(name, type=at_least(minimum), metavar="N", help=text)


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
