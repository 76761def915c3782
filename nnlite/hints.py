"""Names of PyTorch and Keras: errors say what they are called here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import numpy as np

Call = TypeVar("Call", bound=Callable[..., Any])

# Names in the module, and what stands for them here.
RENAMED = {
    "Activation": "ReLU() or another activation, which is a layer of its own",
    "AveragePooling1D": "AvgPool1d",
    "AveragePooling2D": "AvgPool2d",
    "BCELoss": "BinaryCrossEntropy(from_logits=False)",
    "BCEWithLogitsLoss": "BinaryCrossEntropy",
    "BCE": "BinaryCrossEntropy(from_logits=False)",
    "BackupAndRestore": "Checkpoint",
    "BatchNormalization": "BatchNorm1d or nnlite.BatchNorm2d",
    "BinaryFocalCrossentropy": "Focal",
    "CategoricalCrossentropy": "CrossEntropy",
    "CategoricalFocalCrossentropy": "Focal",
    "Concat": "Concatenate",
    "Conv1DTranspose": "ConvTranspose1d",
    "Conv2DTranspose": "ConvTranspose2d",
    "CosineDecay": "CosineAnnealingLR",
    "CosineEmbeddingLoss": "CosineEmbedding",
    "CrossEntropyLoss": "CrossEntropy",
    "Dataset": "DataLoader(inputs, targets)",
    "Dense": "Linear(in_features, out_features)",
    "DepthwiseConv2D": "Conv2d(n, n, kernel_size, groups=n)",
    "ExponentialDecay": "ExponentialLR",
    "GaussianNLLLoss": "GaussianNLL",
    "GlobalAveragePooling1D": "GlobalAvgPool1d",
    "GlobalAveragePooling2D": "GlobalAvgPool2d",
    "GlobalMaxPooling1D": "GlobalMaxPool1d",
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
    "MultiplicativeLR": "LambdaLR",
    "NLLLoss": "NegativeLogLikelihood",
    "NLLLoss2d": "NegativeLogLikelihood",
    "PiecewiseConstantDecay": "MultiStepLR",
    "Poisson": "PoissonNLL",
    "PoissonNLLLoss": "PoissonNLL",
    "PolynomialDecay": "PolynomialLR",
    "Precision": "precision_score",
    "R2Score": "r2_score",
    "Recall": "recall_score",
    "SeparableConv2D": "Conv2d(n, n, kernel_size, groups=n), then nnlite.Conv2d(n, m, 1)",
    "SimpleRNN": "RNN",
    "SmoothL1Loss": "SmoothL1",
    "Softmax2d": "Softmax(dim=1)",
    "SparseCategoricalCrossentropy": "CrossEntropy",
    "SpatialDropout1D": "Dropout1d",
    "SpatialDropout2D": "Dropout2d",
    "Swish": "SiLU",
    "TensorDataset": "DataLoader(inputs, targets)",
    "TopKCategoricalAccuracy": "top_k_accuracy",
    "TransformerDecoder": "TransformerDecoderLayer, as many as it has layers",
    "TransformerEncoder": "TransformerEncoderLayer, as many as it has layers, in a Sequential",
    "TripletMarginLoss": "TripletMargin",
    "UpSampling2D": "Upsample",
    "UpsamplingBilinear2d": 'Upsample(scale_factor=2, mode="bilinear")',
    "UpsamplingNearest2d": "Upsample",
    "ZeroPadding1D": "ZeroPad1d",
    "ZeroPadding2D": "ZeroPad2d",
    "accuracy_score": "accuracy",
    "batch_norm": "BatchNorm1d or nnlite.BatchNorm2d",
    "binary_cross_entropy_with_logits": "BinaryCrossEntropy",
    "categorical_accuracy": "accuracy",
    "clip_grad_norm_": "clip_grad_norm",
    "clip_grad_value_": "clip_grad_value",
    "glorot_normal": "init.xavier_normal_",
    "glorot_uniform": "init.xavier_uniform_",
    "he_normal": "init.kaiming_normal_",
    "he_uniform": "init.kaiming_uniform_",
    "inference_mode": "no_grad",
    "initializers": "init",
    "instance_norm": "InstanceNorm1d or nnlite.InstanceNorm2d",
    "interpolate": "Upsample",
    "jit": "compile",
    "kl_div": "KLDivergence",
    "l1_loss": "MeanAbsoluteError",
    "load": "load_state, nnlite.load_model or nnlite.load_checkpoint",
    "load_weights": "load_state",
    "lr_scheduler": "StepLR and other schedules, with their names of PyTorch",
    "mae": "MeanAbsoluteError",
    "manual_seed": "seed",
    "mse": "MeanSquaredError",
    "mse_loss": "MeanSquaredError",
    "nll_loss": "NegativeLogLikelihood",
    "onnx": "to_onnx",
    "pad": "ZeroPad2d or another padding layer, or numpy.pad",
    "plot_history": "History.plot: history.plot()",
    "profiler": "trace",
    "save_weights": "save",
    "scaled_dot_product_attention": "MultiheadAttention",
    "set_random_seed": "seed",
    "sparse_categorical_accuracy": "accuracy",
    "summary": "Layer.summary: model.summary(input_shape)",
    "set_default_dtype": "Layer.double: model.double()",
    "swa_utils": "SWA, nnlite.EMA or nnlite.AveragedModel",
    "transforms": "RandomCrop and other transforms, for DataLoader(transform=...)",
    "vision": "datasets",
}

_ARRAYS = "arrays are NumPy's: use numpy"
_CPU = "everything runs on the CPU: leave it out"
_FLAT = "its names are in nnlite itself: import nnlite as nn"
_LISTS = "a list or dict of layers or parameters is a plain attribute: self.layers = [...]"
_NO_TAPE = "there is no tape: model.backward(loss.backward()) computes the gradients"
_NOT_HERE = "nnlite does not have it; derive from nnlite.Layer to write your own"
_NO_SUCH_OPTIMIZER = "nnlite does not have it; nnlite.Adam and nnlite.RMSprop are the nearest"
_SKLEARN = "the estimators are in nnlite.interop.sklearn"
_SCALED = "scale the arrays before the training: (x - x.mean(axis=0)) / x.std(axis=0)"

# Names that have no single counterpart.
EXPLAINED = {
    **dict.fromkeys(("Tensor", "as_tensor", "cat", "from_numpy", "is_tensor", "rand"), _ARRAYS),
    **dict.fromkeys(("randn", "randint", "tensor"), _ARRAYS),
    **dict.fromkeys(("amp", "backend", "backends", "cuda", "device"), _CPU),
    **dict.fromkeys(("set_default_device",), _CPU),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor", "sklearn"), _SKLEARN),
    **dict.fromkeys(("NetClassifier", "NetRegressor"), _SKLEARN),
    **dict.fromkeys(("autograd", "grad", "GradientTape"), _NO_TAPE),
    **dict.fromkeys(("ModuleList", "ModuleDict", "ParameterList", "ParameterDict"), _LISTS),
    **dict.fromkeys(("activations", "callbacks", "metrics", "models", "nn", "optimizers"), _FLAT),
    **dict.fromkeys(("modules", "schedules", "utils"), _FLAT),
    **dict.fromkeys(("Normalization", "Normalize", "Rescaling", "StandardScaler"), _SCALED),
    **dict.fromkeys(("ASGD", "Adadelta", "Adafactor", "Adamax", "Ftrl"), _NO_SUCH_OPTIMIZER),
    **dict.fromkeys(("Rprop", "SparseAdam"), _NO_SUCH_OPTIMIZER),
    **dict.fromkeys(("AlphaDropout", "Bilinear", "CELU", "CTCLoss", "ChannelShuffle"), _NOT_HERE),
    **dict.fromkeys(("CosineSimilarity", "EmbeddingBag", "Fold", "Hardshrink"), _NOT_HERE),
    **dict.fromkeys(("HingeEmbeddingLoss", "LPPool1d", "LPPool2d", "LocalResponseNorm"), _NOT_HERE),
    **dict.fromkeys(("LogCosh", "MarginRankingLoss", "MaxUnpool2d", "PairwiseDistance"), _NOT_HERE),
    **dict.fromkeys(("MultiLabelMarginLoss", "MultiLabelSoftMarginLoss"), _NOT_HERE),
    **dict.fromkeys(("PixelUnshuffle", "RReLU", "RepeatVector", "SoftMarginLoss"), _NOT_HERE),
    **dict.fromkeys(("Softmin", "Softshrink", "Tanhshrink", "Threshold", "Unfold"), _NOT_HERE),
    "AUC": 'a scorer of scikit-learn is a metric by name: metrics=["roc_auc"]',
    "Bidirectional": "write nnlite.LSTM(..., bidirectional=True)",
    "Buffer": "use layer.register_buffer(name, array)",
    "ChainedScheduler": "call the step() of each schedule",
    "DataParallel": "nnlite.interop.mpi trains with several processes",
    "Function": "derive from nnlite.Layer, with forward and backward",
    "distributed": "nnlite.interop.mpi trains with several processes",
    "DistributedDataParallel": "nnlite.interop.mpi trains with several processes",
    "F": "functions are layers: nnlite.ReLU()(x)",
    "Input": "a Sequential needs none, and nnlite.Graph names its inputs: Graph(nodes, inputs='x')",
    "Masking": "recurrent layers have an argument mask: layer(x, mask=mask)",
    "SyncBatchNorm": "use nnlite.interop.mpi.SyncBatchNorm",
    "TerminateOnNaN": "nnlite.fit ends by itself with an error",
    "TimeDistributed": "leave it out: nnlite.Linear takes (N, L, features)",
    "Transformer": "use nnlite.TransformerEncoderLayer and nnlite.TransformerDecoderLayer",
    "eye_": "assign to parameter.data[...]",
    "functional": "functions are layers: nnlite.ReLU()(x)",
    "PositionalEncoding": "use nnlite.SinusoidalPositions or nnlite.LearnedPositions",
    "RandomRotation": "use nnlite.RandomAffine(degrees=10)",
    "RandomTranslation": "use nnlite.RandomAffine(shift=2)",
    "one_hot": "nnlite.CrossEntropy takes class indices; or numpy.eye(classes)[labels]",
    "pack_padded_sequence": "recurrent layers have an argument mask: layer(x, mask=mask)",
    "pad_sequence": "pad with numpy.zeros, and give the layer a mask: layer(x, mask=mask)",
    "parameters_to_vector": "numpy.concatenate([p.data.ravel() for p in model.parameters()])",
    "random_split": "shuffle an index array, and slice it",
    "regularizers": "weight decay is an option of the optimizers: weight_decay",
    "set_num_threads": "set the environment variable OMP_NUM_THREADS",
    "to_categorical": "nnlite.CrossEntropy takes class indices; or numpy.eye(classes)[labels]",
    "train_test_split": "shuffle an index array, and slice it",
    "weight_norm": "give the optimizer a weight_decay, or the model a LayerNorm",
}

# Attributes of layers, losses, optimizers, schedules and parameters: what to use instead.
ATTRIBUTES = {
    **dict.fromkeys(("cpu", "cuda", "device", "to"), _CPU),
    **dict.fromkeys(("detach", "item", "numpy", "value", "T"), "use the array parameter.data"),
    **dict.fromkeys(("load", "load_weights"), "use layer.load_state_dict(nnlite.load_state(path))"),
    **dict.fromkeys(("save", "save_weights"), "use nnlite.save(layer, path)"),
    **dict.fromkeys(("add_module", "register_module"), "use append(layer) or an attribute"),
    **dict.fromkeys(("trainable_variables", "trainable_weights", "weights"), "use parameters()"),
    **dict.fromkeys(("assign", "copy_", "fill_"), "write parameter.data[...] = values"),
    **dict.fromkeys(
        (
            "register_backward_hook",
            "register_forward_hook",
            "register_forward_pre_hook",
            "register_full_backward_hook",
        ),
        "use nnlite.trace(model, x), which records the values and gradients of each layer",
    ),
    **dict.fromkeys(
        ("abs", "clip", "dot", "max", "mean", "min", "norm", "reshape", "sqrt", "std", "sum"),
        "use the array parameter.data",
    ),
    "W": "use weight",
    "add": "use append(layer)",
    "apply_gradients": "use step()",
    "bfloat16": "use float() or double(): parameters are of float32 or float64",
    "build": "leave it out: layers have their parameters from the beginning",
    **dict.fromkeys(("clone", "copy"), "use copy.deepcopy(layer), or parameter.data.copy()"),
    "add_weight": "use an attribute: self.name = nnlite.Parameter(values)",
    "compile": "use nnlite.fit(model, loss, optimizer, loader), which takes all three",
    "count_params": "use model.summary(input_shape), or add up parameter.size",
    "dataset": "use the tuple loader.arrays",
    "epoch": "use epochs",
    "evaluate": "use nnlite.evaluate(model, loss, data)",
    "fit": "use nnlite.fit(model, loss, optimizer, loader)",
    "flatten_parameters": "leave it out",
    "freeze": "use requires_grad_(False)",
    "get_layer": "use the index or the name of the layer: model[0]",
    "get_lr": "use get_last_lr()",
    "get_parameter": "use dict(layer.named_parameters())[name]",
    "get_submodule": "use the attributes and indices: model[0].linear",
    "get_weights": "use state_dict()",
    "grad": "the parameters have the gradients: layer.weight.grad",
    "half": "use float() or double(): parameters are of float32 or float64",
    "history": "the History itself is a mapping: history['loss']",
    "input_shape": "layers take batches of any size; see model.summary(input_shape)",
    "kernel": "use weight",
    "last_epoch": "use count",
    "learning_rate": "use lr",
    "minimize": "use model.backward(loss.backward()) and step()",
    "nodes": "the Graph itself is a mapping of the names of nodes to layers",
    "numel": "use parameter.size",
    "output_shape": "layers take batches of any size; see model.summary(input_shape)",
    "pop": "use del model[-1]",
    "params": "use parameters()",
    "plot": "use nnlite.plot_model(model)",
    "predict": "use nnlite.predict(model, inputs)",
    "predict_classes": "use nnlite.predict(model, inputs).argmax(axis=1)",
    "predict_proba": "use nnlite.Softmax()(nnlite.predict(model, inputs))",
    "register_parameter": "use an attribute: layer.name = nnlite.Parameter(values)",
    "reset_parameters": "make a new layer, or use nnlite.init",
    "save_for_backward": "use self.cache(x)",
    "saved_tensors": "use self.cached()",
    "set_weights": "use load_state_dict(state)",
    "state": "use state_dict()",
    "train_on_batch": "write the five lines of a step, or use nnlite.fit",
}

# Options: the names that they may have here, or a sentence.
OPTIONS: dict[str, tuple[str, ...] | str] = {
    **dict.fromkeys(("beta_1", "beta_2"), "write betas=(beta_1, beta_2)"),
    **dict.fromkeys(("clip_grad_norm", "grad_clip", "max_norm"), ("max_grad_norm",)),
    **dict.fromkeys(("val", "val_data", "validation_data"), ("validation",)),
    **dict.fromkeys(("n_epochs", "nb_epoch", "num_epochs"), ("epochs",)),
    **dict.fromkeys(("capturable", "foreach", "fused", "input_length"), "leave it out"),
    **dict.fromkeys(("num_workers", "pin_memory", "persistent_workers"), "leave it out"),
    **dict.fromkeys(("kernel_initializer", "bias_initializer"), "use nnlite.init"),
    **dict.fromkeys(("kernel_regularizer", "l2"), "give the optimizer a weight_decay"),
    "activation": "append an activation such as nnlite.ReLU() to the model",
    "alpha": ("negative_slope",),
    "axis": ("dim",),
    "batch": ("batch_size",),
    "batch_first": "sequences are always (N, L, features); leave it out",
    "batch_size": "the loader has it: nnlite.DataLoader(inputs, targets, batch_size=32)",
    "class_weight": "losses have it: nnlite.CrossEntropy(weight=[1, 5])",
    "clipnorm": "nnlite.fit has max_grad_norm",
    "collate_fn": ("transform",),
    "data_format": "images are always (N, C, H, W); leave it out",
    "decay": ("weight_decay",),
    "device": "everything runs on the CPU; leave it out",
    "dropout_rate": ("p", "dropout"),
    "dtype": "parameters are of float32; layer.astype(dtype) converts them",
    "early_stopping": "callbacks=[nnlite.EarlyStopping()]",
    "epsilon": ("eps",),
    "filters": ("out_channels",),
    "generator": ("rng",),
    "hidden_dim": ("hidden_size",),
    "inplace": "layers do not overwrite their input; leave it out",
    "initial_epoch": "checkpoint=path and resume=True continue a run",
    "input_dim": ("num_embeddings", "in_features", "input_size"),
    "input_shape": "each layer is given its number of inputs, and nnlite.Flatten its image",
    "keepdims": ("keepdim",),
    "kernel_constraint": "change parameter.data after each step, in a callback",
    "last_epoch": "to continue, use load_state_dict",
    "learning_rate": ("lr",),
    "mask_zero": "padding_idx=0 is near it; recurrent layers have an argument mask",
    "monitor": "nnlite.fit passes it the validation loss",
    "loss": "a loss is checked by itself: nnlite.gradcheck(loss, prediction, target)",
    "name": "name the nodes of an nnlite.Graph",
    "output_dim": ("embedding_dim", "out_features"),
    "pool_size": ("kernel_size",),
    "prob": ("p",),
    "proj_size": "append nnlite.Linear(hidden_size, proj_size)",
    "rate": ("p",),
    "return_sequences": 'True is outputs="all", False is outputs="last"',
    "return_state": "the state is layer.last_state",
    "rho": ("alpha",),
    "save_best_only": "nnlite.EarlyStopping ends with the best weights",
    "scheduler": ("schedule",),
    "seed": ("rng",),
    "show_shapes": "the trace of a model has them: plot_model(model, trace)",
    "shuffle": "the loader has it: nnlite.DataLoader(inputs, targets, shuffle=True)",
    "size_average": ("reduction",),
    "steps_per_epoch": "an epoch is one pass through the loader",
    "strides": ("stride",),
    **dict.fromkeys(("h0", "hx"), "the state is the second argument: layer(x, state)"),
    "training": "model.train() and model.eval() set the mode",
    "to_file": "nnlite.plot_model(model).save(path)",
    "train": "train, test = nnlite.datasets.mnist() has both",
    "transform": "nnlite.DataLoader has it",
    "units": ("out_features", "hidden_size"),
    "use_bias": ("bias",),
    "validation_split": "slice the arrays: validation=(inputs[:1000], targets[:1000])",
    "verbose": ("progress",),
}


def hint(name: str, public: Iterable[str]) -> str | None:
    """Return what `name`, which nnlite does not have, is called among its `public` names."""
    if name in RENAMED:
        return f"use nnlite.{RENAMED[name]}"
    if name in EXPLAINED:
        return EXPLAINED[name]
    plain = _plain(name).removeprefix("lazy")
    for other in public:
        if _plain(other.rpartition(".")[2]) == plain:
            return f"use nnlite.{other}"
    for other, here in RENAMED.items():
        if _plain(other) == plain:
            return f"use nnlite.{here}"
    for other, cure in EXPLAINED.items():
        if _plain(other) in (plain, f"{plain}loss"):
            return cure
    if plain.endswith("3d"):
        return "nnlite has no layers of volumes, only of sequences and images"
    return f"use numpy.{name}" if hasattr(np, name) else None


def _plain(name: str) -> str:
    """Return a name without what PyTorch and Keras write differently: case and underscores."""
    return name.replace("_", "").lower()


class GuessedModules:
    """The last finder of ``sys.meta_path``: modules such as ``nnlite.nn`` are answered as names."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise a ModuleNotFoundError that says where the names of the module are, if known."""
        package, _, module = name.rpartition(".")
        cure = hint(module, ()) if package.partition(".")[0] == "nnlite" else None
        if cure:
            raise ModuleNotFoundError(f"{package} has no module {module!r}; {cure}", name=name)


def attribute_error(message: str, name: str) -> AttributeError:
    """Return the error of a missing attribute, with what to use instead if that is known."""
    cure = ATTRIBUTES.get(name)
    return AttributeError(f"{message}; {cure}" if cure else message)


def cure_of_compiled(layer: object) -> str | None:
    """Return what to write to a file in place of a compiled model, or None for other layers.

    The class is known by its name, because only users import the compiler.
    """
    is_compiled = type(layer).__name__ == "CompiledModel"
    return "use its attribute .model, which is not compiled" if is_compiled else None


def options_of(owner: object) -> dict[str, Any]:
    """Return the options of a constructor's call that `owner` has as attributes."""
    names = inspect.signature(type(owner).__init__).parameters
    return {name: getattr(owner, name) for name in names if name in vars(owner)}


def call_of(owner: object) -> str:
    """Return the constructor's call, with the options that `owner` has as attributes."""
    options = [f"{name}={option!r}" for name, option in options_of(owner).items()]
    return f"{type(owner).__name__}({', '.join(options)})"


def explained(call: Call) -> Call:
    """Decorate a function or an ``__init__``: wrong arguments are answered with the right ones."""

    @functools.wraps(call)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except TypeError:
            is_constructor = call.__name__ == "__init__"
            name = type(arguments[0]).__name__ if is_constructor else call.__name__
            complaint = complaint_of(call, arguments, options, name)
            if complaint is None:
                raise
        accepted = getattr(arguments[0], "_accepted", {}) if arguments else {}
        rest = {name: o for name, o in options.items() if o not in accepted.get(name, ())}
        if len(rest) < len(options):
            return wrapper(*arguments, **rest)
        raise TypeError(complaint)

    return cast(Call, wrapper)


def complaint_of(
    call: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], name: str
) -> str | None:
    """Return why `call`, for users `name`, does not take these arguments, or None if it does."""
    signature = inspect.signature(call)
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        fault = str(error)
    else:
        return None
    known = {name: option for name, option in signature.parameters.items() if name != "self"}
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
    found = [name for name in here if name in names] or difflib.get_close_matches(
        option, names, 1, 0.75
    )
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
