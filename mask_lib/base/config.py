"""What a run is: one frozen, checked dataclass, saved as JSON beside every result it led to."""

import dataclasses
import datetime
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from mask_lib.base.labels import AGE_EDGES

Resize = Literal["stretch", "crop", "pad"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "cosine", "one_cycle", "step", "plateau"]
Loss = Literal["cross_entropy", "focal", "f1", "f1_cross_entropy"]
Sampling = Literal["shuffle", "weighted"]
Mixing = Literal["none", "mixup", "cutmix", "cutmix_half", "cutmix_old"]
Balance = Literal["none", "sqrt", "full"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
LabelSource = Literal["clean", "given"]
Head = Literal["linear", "attention", "three"]
AgeTarget = Literal["classes", "ordinal"]
CheckpointChoice = Literal["best", "last", "swa", "ema"]
WhenChanged = Literal["refuse", "restart"]
AUGMENTATIONS = ("none", "flip", "faces", "randaugment", "trivialaugment", "seed")  # presets of augment.policy
WEIGHTS_BY_NAME = frozenset({"imagenet", "none"})  # anything else is a path
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
NOT_PART_OF_RESULT = frozenset({"run", "folds"})  # another name, or more folds, leave each fold's result as it is


@dataclasses.dataclass(frozen=True)
class Run:
    """Every setting that changes what a training run gives. The defaults are the seed recipe's.

    However it is built, types and ranges are checked; ValueError names the field and what to write.
    """

    run: str = "one_model"  # names the folder under runs/
    architecture: str = "tf_efficientnet_lite0"  # any timm name, or custom_model
    head: Head = "linear"  # attention: where to look for each class; three: mask, gender and age apart
    weights: str = "imagenet"  # imagenet, none, or the path of a .safetensors file
    image_width: int = 224  # pixels
    image_height: int = 224  # pixels
    resize: Resize = "stretch"
    image_channels: int = 3  # 1: grey, 3: colour, 4: red, green, blue and yellow, as mask_lib.data.rgby combines them
    per_image_norm: bool = False  # each photo's channels get mean 0 and deviation 1, not the data set's
    folds: tuple[int, ...] = ()  # empty: all of them
    label_source: LabelSource = "clean"  # as label cleaning left them, or as the data set gives them
    pseudo_labels: str = (
        ""  # a finished run of which mask_lib.ensemble.self_training made pseudo-labels, which join training
    )
    pseudo_weight: float = 0.5  # of a pseudo-labeled photo in the loss, beside 1 for a labeled one
    partial_labels: bool = False  # external photos of which not every attribute is known join training
    epochs: int = 2
    batch_size: int = 16  # photos
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.001  # the peak, where the schedule has one
    momentum: float = 0.9  # of SGD; AdamW's first beta
    weight_decay: float = 0.0
    head_learning_rate_scale: float = 1.0  # the new last layer learns this many times faster
    schedule: Schedule = "constant"
    warmup_epochs: float = 0.0
    plateau_epochs: int = 2  # of the schedule plateau: a tenth of the rate after so many without a better macro F1
    layer_decay: float = 1.0  # each layer learns this many times as fast as the one after it; 1: all alike
    frozen_epochs: int = 0  # at the start only the last layer learns
    early_stop_epochs: int = 0  # stop after so many without a better macro F1; 0: never
    sampling: Sampling = "shuffle"  # weighted: each class as often as any other, photos drawn with replacement
    loss: Loss = "cross_entropy"  # macro F1 hears neither of smoothing nor of class_balance
    focal_gamma: float = 2.0  # of the focal loss; 0 makes it cross-entropy
    label_smoothing: float = 0.0
    attribute_label_smoothing: tuple[float, ...] = ()  # of mask, gender, age: [0.0, 0.0, 0.2]; empty: none
    class_balance: Balance = "none"  # weights of the classes in the loss: none, 1/sqrt(count), 1/count
    attribute_loss: float = 0.0  # weight of the losses of mask, gender and age beside the 18-way one; three heads: 0
    head_loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0)  # of the three heads' losses: mask, gender, age
    age_target: AgeTarget = "classes"  # ordinal: the third head learns from ages in years, by cross-entropy alone
    age_softness: float = 0.0  # years by which the borders between age groups are blurred in training
    old_from: int = 60  # years from which training counts a person as old; scores always count from 60
    augmentation: str = (
        "flip"  # a preset's name, as mask_lib.augment.policy lists them, or the path of a policy's .json
    )
    mixing: Mixing = "none"  # of two photos and their labels; cutmix_old: with a photo of the oldest
    mixing_alpha: float = 1.0  # shares come from Beta(alpha, alpha): 1 any alike, below 1 mostly small ones
    mixing_probability: float = 0.5  # share of the photos that are mixed
    dropout: float = 0.0
    precision: Precision = "auto"  # auto: bfloat16 or float16 on a GPU, float32 on a CPU
    compile_network: bool = False  # worth it on a GPU for runs of many minutes
    keep_epochs: int = 0  # of the last so many epochs the weights stay on disk, to be averaged
    ema_decay: float = 0.0  # of a moving average of the weights, such as 0.999 a step; 0: none
    checkpoint_choice: CheckpointChoice = "best"  # by macro F1 on the validation fold, once made of averages too
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), kind))
        at_least_1 = ("image_width", "image_height", "epochs", "batch_size", "plateau_epochs")
        self._hold(lambda value: value >= 1, "at least 1", *at_least_1)
        self._hold(lambda value: value > 0, "above 0", "learning_rate", "head_learning_rate_scale", "mixing_alpha")
        self._hold(lambda value: 0 < value <= 1, "above 0 and at most 1", "layer_decay")
        self._hold(lambda value: 0 <= value <= 1, "from 0 to 1", "mixing_probability")
        self._hold(lambda value: 0 <= value < 1, "at least 0 and below 1", "momentum", "label_smoothing", "dropout")
        self._hold(lambda value: 0 <= value < 1, "at least 0 and below 1", "ema_decay")
        not_negative = ("weight_decay", "attribute_loss", "focal_gamma", "warmup_epochs", "seed")
        self._hold(lambda value: value >= 0, "0 or above", *not_negative, "frozen_epochs", "early_stop_epochs")
        self._hold(lambda value: value >= 0, "0 or above", "keep_epochs")
        at_most = f"at most epochs ({self.epochs})"
        self._hold(lambda value: value <= self.epochs, at_most, "warmup_epochs", "frozen_epochs")
        three = "empty or three numbers, for mask, gender and age, at least 0 and below 1"
        self._hold(lambda value: len(value) in (0, 3), three, "attribute_label_smoothing")
        self._hold(lambda value: all(0 <= one < 1 for one in value), three, "attribute_label_smoothing")
        balanced = self.sampling == "weighted"
        once = "none where sampling is weighted, or rare classes would count twice over"
        self._hold(lambda value: value == "none" or not balanced, once, "class_balance")
        self._hold(lambda value: value >= 0, "0 or above", "age_softness")
        self._hold(lambda years: AGE_EDGES[0] < years <= AGE_EDGES[1], "from 31 to 60 years", "old_from")
        self._hold_heads()
        self._hold_more_photos()
        self._hold(SAFE_NAME.fullmatch, "a name of letters, digits, '_', '-' and '.', since it becomes a folder", "run")
        self._hold(lambda value: value in (1, 3, 4), "1, 3 or 4", "image_channels")
        choice = self.checkpoint_choice
        self._hold(lambda value: value > 0 or choice != "ema", "above 0 where checkpoint_choice is ema", "ema_decay")
        self._hold(lambda value: value > 0 or choice != "swa", "above 0 where checkpoint_choice is swa", "keep_epochs")
        self._hold(lambda folds: all(fold >= 0 for fold in folds), "a list of fold numbers from 0", "folds")
        self._hold(lambda folds: len(set(folds)) == len(folds), "without repeats", "folds")
        self._hold_augmentation()

    def _hold_augmentation(self) -> None:
        """A preset's name, or a path; no file is opened."""
        if self.augmentation not in AUGMENTATIONS and not self.augmentation.endswith(".json"):
            nearest = difflib.get_close_matches(self.augmentation, AUGMENTATIONS, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            wanted = f"one of {', '.join(AUGMENTATIONS)}, or the path of a policy's .json file{hint}"
            _require(False, "augmentation", self.augmentation, wanted)

    def _hold_heads(self) -> None:
        """What the settings of three heads ask for."""
        three, name = self.head == "three", "head_loss_weights"
        self._hold(lambda weights: len(weights) == 3, "three numbers, for mask, gender and age", name)
        self._hold(lambda weights: min(weights) >= 0 < max(weights), "0 or above, one of them above 0", name)
        self._hold(lambda weights: three or set(weights) == {1.0}, "[1.0, 1.0, 1.0] unless head is three", name)
        self._hold(lambda target: three or target == "classes", "classes unless head is three", "age_target")
        weighed = "0 where head is three, which learns mask, gender and age alone: weigh those by head_loss_weights"
        self._hold(lambda weight: not three or weight == 0, weighed, "attribute_loss")
        apart = self.age_target == "classes"
        self._hold(lambda years: apart or years == 0, "0 where age_target is ordinal", "age_softness")
        deaf = "cross_entropy where age_target is ordinal, since only mask and gender would learn by another"
        self._hold(lambda loss: apart or loss == "cross_entropy", deaf, "loss")

    def _hold_more_photos(self) -> None:
        """What pseudo-labels and photos of which not all is known ask for."""
        another = "the name of another run, which is finished, or empty"
        self._hold(lambda name: not name or (SAFE_NAME.fullmatch(name) and name != self.run), another, "pseudo_labels")
        self._hold(lambda value: 0 < value <= 1, "above 0 and at most 1, a labeled photo's weight", "pseudo_weight")
        teaches = self.attribute_loss > 0 or self.head == "three"
        advice = "false here, since 18 outputs alone learn nothing of a photo of which not all is known"
        advice += ": set attribute_loss above 0, such as 1.0, or head: three"
        self._hold(lambda joins: teaches or not joins, advice, "partial_labels")

    def _hold(self, holds: Callable[[Any], Any], wanted: str, *names: str) -> None:
        for name in names:
            _require(holds(getattr(self, name)), name, getattr(self, name), wanted)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """A run from a mapping that holds its fields among others, such as a notebook's `globals()`.

        Raises ValueError for a missing field too. Unknown names are `mask_lib.headless`'s to refuse: a notebook's
        namespace is full of names that are no settings.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in parameters]
        if missing:
            raise ValueError(f"the parameters cell lacks {', '.join(missing)}")
        return cls(**{name: parameters[name] for name in names})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A run from exactly its settings, as `config.json` holds them; unknown names are errors."""
        unknown = set(settings) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls.from_parameters({**cls().settings(), **settings})

    def settings(self) -> dict[str, Any]:
        """Every field as plain JSON data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def check_pseudo_choice(threshold: float, class_share: float) -> None:
    """Raise ValueError for settings of `choose` out of range."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold = {threshold}: it is a probability, from 0 to 1")
    if not 0 < class_share <= 1:
        raise ValueError(f"class_share = {class_share}: it must be above 0 and at most 1, which takes all")


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two runs' settings in a way that changes results: `epochs: 2 → 4`.

    A setting that one side lacks is of a later version and has its default, which does what was done before it.
    """
    old, new = ({**Run().settings(), **settings} for settings in (old, new))
    names = [name for name in {**old, **new} if name not in NOT_PART_OF_RESULT]
    return [f"{name}: {old.get(name)} → {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def checked(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, a field's annotated type, or a ValueError that says what to write instead."""
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        _require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        _require(isinstance(value, list | tuple), name, value, "a list, such as [0, 1]")
        return tuple(checked(f"{name}[{place}]", item, choices[0]) for place, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not fits:
        raise ValueError(f"{name} = {value!r} is {words_for(value)}, not {_WORDS[kind]}{advice_on_type(value, kind)}")
    if kind is float:
        _require(math.isfinite(value), name, value, "a finite number")
    return value


def advice_on_type(value: Any, kind: type) -> str:
    """`: ` and what to write instead of `value` to give a `kind`, where that is a common slip; else nothing."""
    if kind is str and isinstance(value, bool | int | float | datetime.date):
        return f": put it in quotes, '{value}'"
    if not (kind in (int, float) and isinstance(value, str) and NUMBER.fullmatch(value)):
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    if kind is int:
        whole = f": write {float(value):.0f}{'' if exponent else ' without quotes'}"
        return whole if float(value).is_integer() else ""
    if not exponent:
        return f": write {value} without quotes"
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if exponent[0] in "+-" else "+"
    return f": YAML reads it as text unless it has a point and the exponent's sign; write {mantissa}e{sign}{exponent}"


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
    types.NoneType: "empty",
}


def words_for(value: Any) -> str:
    """What a value is, as a person says it: `a whole number`, `text`, `a list`."""
    return _WORDS.get(type(value), f"a {type(value).__name__}")


def _require(holds: bool, name: str, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} = {value!r}: it must be {wanted}")


class ChangedSettingsError(ValueError):
    """A run's folder holds results of other settings or other photos."""
