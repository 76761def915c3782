"""Names of PyTorch and Keras: errors say what they are called here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar, cast

Call = TypeVar("Call", bound=Callable[..., Any])

# Names in the module, and what stands for them here.
RENAMED = {
    "Activation": "ReLU() or another activation, which is a layer of its own",
    "AveragePooling1D": "AvgPool1d",
    "AveragePooling2D": "AvgPool2d",
    "BCELoss": "BinaryCrossEntropy(from_logits=False)",
    "BCEWithLogitsLoss": "BinaryCrossEntropy",
    "BatchNormalization": "BatchNorm1d or nnlite.BatchNorm2d",
    "CategoricalCrossentropy": "CrossEntropy",
    "CosineEmbeddingLoss": "CosineEmbedding",
    "CrossEntropyLoss": "CrossEntropy",
    "Dataset": "DataLoader(inputs, targets)",
    "Dense": "Linear(in_features, out_features)",
    "GaussianNLLLoss": "GaussianNLL",
    "GlobalAveragePooling2D": "GlobalAvgPool2d",
    "GlobalMaxPooling2D": "GlobalMaxPool2d",
    "HuberLoss": "Huber",
    "KLDivLoss": "KLDivergence",
    "L1Loss": "MeanAbsoluteError",
    "LRScheduler": "Schedule",
    "LayerNormalization": "LayerNorm",
    "LearningRateScheduler": "Schedule",
    "MSELoss": "MeanSquaredError",
    "MaxPooling1D": "MaxPool1d",
    "MaxPooling2D": "MaxPool2d",
    "Model": "Layer, nnlite.Sequential or nnlite.Graph",
    "ModelCheckpoint": "Checkpoint",
    "Module": "Layer",
    "MultiMarginLoss": "MultiMargin",
    "NLLLoss": "NegativeLogLikelihood",
    "PoissonNLLLoss": "PoissonNLL",
    "SimpleRNN": "RNN",
    "SmoothL1Loss": "SmoothL1",
    "SparseCategoricalCrossentropy": "CrossEntropy",
    "Swish": "SiLU",
    "TensorDataset": "DataLoader(inputs, targets)",
    "TripletMarginLoss": "TripletMargin",
    "categorical_accuracy": "accuracy",
    "clip_grad_norm_": "clip_grad_norm",
    "clip_grad_value_": "clip_grad_value",
    "glorot_normal": "init.xavier_normal_",
    "glorot_uniform": "init.xavier_uniform_",
    "he_normal": "init.kaiming_normal_",
    "he_uniform": "init.kaiming_uniform_",
    "inference_mode": "no_grad",
    "initializers": "init",
    "load": "load_state, nnlite.load_model or nnlite.load_checkpoint",
    "load_weights": "load_state",
    "lr_scheduler": "StepLR and other schedules, with their names of PyTorch",
    "mae": "MeanAbsoluteError",
    "manual_seed": "seed",
    "mse": "MeanSquaredError",
    "mse_loss": "MeanSquaredError",
    "nll_loss": "NegativeLogLikelihood",
    "l1_loss": "MeanAbsoluteError",
    "profiler": "trace",
    "save_weights": "save",
    "set_random_seed": "seed",
    "sparse_categorical_accuracy": "accuracy",
    "summary": "Layer.summary: model.summary(input_shape)",
    "transforms": "RandomCrop and other transforms, for DataLoader(transform=...)",
    "vision": "datasets",
}

_ARRAYS = "arrays are NumPy's: use numpy"
_CPU = "everything runs on the CPU: leave it out"
_FLAT = "its names are in nnlite itself: import nnlite as nn"
_LISTS = "a list or dict of layers or parameters is a plain attribute: self.layers = [...]"
_NO_TAPE = "there is no tape: model.backward(loss.backward()) computes the gradients"

# Names that have no single counterpart.
EXPLAINED = {
    **dict.fromkeys(("Tensor", "arange", "cat", "from_numpy", "ones", "randn", "stack"), _ARRAYS),
    **dict.fromkeys(("tensor", "zeros", "float32", "float64", "long"), _ARRAYS),
    **dict.fromkeys(("cuda", "device", "set_default_device"), _CPU),
    **dict.fromkeys(("autograd", "grad", "GradientTape"), _NO_TAPE),
    **dict.fromkeys(("ModuleList", "ModuleDict", "ParameterList", "ParameterDict"), _LISTS),
    **dict.fromkeys(("callbacks", "metrics", "models", "nn", "optimizers", "utils"), _FLAT),
    "F": "functions are layers: nnlite.ReLU()(x)",
    "Input": "a Sequential needs none, and nnlite.Graph names its inputs: Graph(nodes, inputs='x')",
    "functional": "functions are layers: nnlite.ReLU()(x)",
    "one_hot": "nnlite.CrossEntropy takes class indices; or numpy.eye(classes)[labels]",
    "random_split": "shuffle an index array, and slice it",
    "regularizers": "weight decay is an option of the optimizers: weight_decay",
    "set_num_threads": "set the environment variable OMP_NUM_THREADS",
    "to_categorical": "nnlite.CrossEntropy takes class indices; or numpy.eye(classes)[labels]",
    "weight_norm": "give the optimizer a weight_decay, or the model a LayerNorm",
}

# Attributes of layers, losses, optimizers, schedules and parameters: what to use instead.
ATTRIBUTES = {
    **dict.fromkeys(("cpu", "cuda", "to"), _CPU),
    **dict.fromkeys(("detach", "numpy", "value"), "use the array parameter.data"),
    **dict.fromkeys(("load", "load_weights"), "use layer.load_state_dict(nnlite.load_state(path))"),
    **dict.fromkeys(("save", "save_weights"), "use nnlite.save(layer, path)"),
    **dict.fromkeys(("add_module", "register_module"), "use an attribute: layer.name = other"),
    **dict.fromkeys(("trainable_variables", "trainable_weights", "weights"), "use parameters()"),
    "T": "use the array parameter.data",
    "add": "use append(layer)",
    "apply_gradients": "use step()",
    "build": "leave it out: layers have their parameters from the beginning",
    "compile": "use nnlite.fit(model, loss, optimizer, loader), which takes all three",
    "evaluate": "use nnlite.evaluate(model, loss, data)",
    "fit": "use nnlite.fit(model, loss, optimizer, loader)",
    "get_lr": "use get_last_lr()",
    "get_weights": "use state_dict()",
    "half": "use float() or double(): parameters are of float32 or float64",
    "item": "use the array parameter.data",
    "learning_rate": "use lr",
    "minimize": "use model.backward(loss.backward()) and step()",
    "predict": "use nnlite.predict(model, inputs)",
    "register_forward_hook": "use nnlite.trace(model, x), which records the output of each layer",
    "register_parameter": "use an attribute: layer.name = nnlite.Parameter(values)",
    "set_weights": "use load_state_dict(state)",
}

# Options: the names that they may have here, or a sentence.
OPTIONS: dict[str, tuple[str, ...] | str] = {
    **dict.fromkeys(("beta_1", "beta_2"), "write betas=(beta_1, beta_2)"),
    **dict.fromkeys(("n_epochs", "nb_epoch", "num_epochs"), ("epochs",)),
    **dict.fromkeys(("num_workers", "pin_memory", "persistent_workers"), "leave it out"),
    **dict.fromkeys(("kernel_initializer", "bias_initializer"), "use nnlite.init"),
    **dict.fromkeys(("kernel_regularizer", "l2"), "give the optimizer a weight_decay"),
    "activation": "append an activation such as nnlite.ReLU() to the model",
    "alpha": ("negative_slope",),
    "axis": ("dim",),
    "batch_first": "sequences are always (N, L, features); leave it out",
    "batch_size": "the loader has it: nnlite.DataLoader(inputs, targets, batch_size=32)",
    "class_weight": ("weight",),
    "clipnorm": "nnlite.fit has max_grad_norm",
    "collate_fn": ("transform",),
    "data_format": "images are always (N, C, H, W); leave it out",
    "decay": ("weight_decay",),
    "device": "everything runs on the CPU; leave it out",
    "dropout_rate": ("p", "dropout"),
    "dtype": "parameters are of float32; layer.astype(dtype) converts them",
    "epsilon": ("eps",),
    "filters": ("out_channels",),
    "generator": ("rng",),
    "hidden_dim": ("hidden_size",),
    "inplace": "layers do not overwrite their input; leave it out",
    "input_dim": ("num_embeddings", "in_features", "input_size"),
    "input_length": "leave it out",
    "input_shape": "each layer is given its number of inputs, and nnlite.Flatten its image",
    "keepdims": ("keepdim",),
    "last_epoch": "to continue, use load_state_dict",
    "learning_rate": ("lr",),
    "output_dim": ("embedding_dim", "out_features"),
    "pool_size": ("kernel_size",),
    "prob": ("p",),
    "rate": ("p",),
    "return_sequences": 'True is outputs="all", False is outputs="last"',
    "return_state": "the state is layer.last_state",
    "rho": ("alpha",),
    "scheduler": ("schedule",),
    "seed": ("rng",),
    "size_average": ("reduction",),
    "strides": ("stride",),
    "units": ("out_features", "hidden_size"),
    "use_bias": ("bias",),
    "validation_data": ("validation",),
    "verbose": ("progress",),
}


def hint(name: str, public: Iterable[str]) -> str | None:
    """Return what `name`, which nnlite does not have, is called among its `public` names."""
    if name in RENAMED:
        return f"use nnlite.{RENAMED[name]}"
    if name in EXPLAINED:
        return EXPLAINED[name]
    plain = name.replace("_", "").lower()
    same = [other for other in public if other.replace("_", "").lower() == plain]
    return f"use nnlite.{same[0]}" if same else None


def attribute_error(message: str, name: str) -> AttributeError:
    """Return the error of a missing attribute, with what to use instead if that is known."""
    cure = ATTRIBUTES.get(name)
    return AttributeError(f"{message}; {cure}" if cure else message)


def call_of(owner: object) -> str:
    """Return the constructor's call, with the options that `owner` has as attributes."""
    names = inspect.signature(type(owner).__init__).parameters
    options = [f"{name}={vars(owner)[name]!r}" for name in names if name in vars(owner)]
    return f"{type(owner).__name__}({', '.join(options)})"


def explained(call: Call) -> Call:
    """Decorate a function or an ``__init__``: wrong arguments are answered with the right ones."""

    @functools.wraps(call)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except TypeError:
            complaint = _complaint(call, arguments, options)
            if complaint is None:
                raise
        accepted = getattr(arguments[0], "_accepted", {}) if arguments else {}
        rest = {name: o for name, o in options.items() if o not in accepted.get(name, ())}
        if len(rest) < len(options):
            return wrapper(*arguments, **rest)
        raise TypeError(complaint)

    return cast(Call, wrapper)


def _complaint(
    call: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> str | None:
    """Return why `call` does not take these arguments, or None if it does."""
    signature = inspect.signature(call)
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        fault = str(error)
    else:
        return None
    known = {name: option for name, option in signature.parameters.items() if name != "self"}
    name = type(arguments[0]).__name__ if call.__name__ == "__init__" else call.__name__
    unknown = [option for option in options if option not in known]
    if unknown:
        return f"{name}: there is no option {unknown[0]!r}; {_cure(unknown[0], known)}"
    shown = signature.replace(
        parameters=[option.replace(annotation=option.empty) for option in known.values()],
        return_annotation=signature.empty,
    )
    return f"{name}: {fault}; it is {name}{shown}"


def _cure(option: str, known: dict[str, inspect.Parameter]) -> str:
    """Return what to write in place of an option, given those that there are."""
    names = [name for name, each in known.items() if each.kind is not each.VAR_POSITIONAL]
    here = OPTIONS.get(option, ())
    if isinstance(here, str):
        return here
    found = [name for name in here if name in names] or difflib.get_close_matches(option, names, 1)
    if found:
        return f"it is called {found[0]!r}"
    return f"the options are {', '.join(names)}" if names else "it takes none"


class Hinted:
    """Base of the classes whose users guess names: wrong ones are answered with the right ones."""

    __slots__ = ()

    # Options of PyTorch that are no options here, with the values that change nothing.
    _accepted: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = explained(cls.__init__)  # type: ignore[method-assign]

    def __dir__(self) -> list[str]:
        names = object.__dir__(self)
        return [name for name in names if name not in ATTRIBUTES or hasattr(self, name)]


class _Guess:
    """A name of `ATTRIBUTES` in `Hinted`. A method, or an attribute of an object, overrides it.

    A ``__getattr__`` in `Hinted` would do the same, and slow down every attribute that exists:
    Python does not optimise the access to attributes of such objects.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: object, kind: type) -> Any:
        fault = f"{kind.__name__!r} object has no attribute {self._name!r}"
        raise attribute_error(fault, self._name)


for _name in ATTRIBUTES:
    setattr(Hinted, _name, _Guess(_name))
