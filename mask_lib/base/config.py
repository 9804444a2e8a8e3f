"""`Run`: every setting of a training run, saved as `config.json`; and bounds that the notebooks share with it."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mask_lib.base import files, labels
from mask_lib.base.checks import Settings, checked, did_you_mean, safe_name

Count = Annotated[int, Field(ge=1, le=100_000)]
CountOrNone = Annotated[int, Field(ge=0, le=100_000)]
Positive = Annotated[float, Field(gt=0, le=10_000)]
NotNegative = Annotated[float, Field(ge=0, le=10_000)]
Share = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(ge=1, le=8192)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
AUGMENTATIONS = ("none", "flip", "faces", "randaugment", "trivialaugment", "seed")  # presets of augment.policy
FROZEN = "frozen"  # as a head: nothing of the backbone learns
SEARCHED = "searched"  # as a notebook's augmentation: what the search of the same output_dir came to
WEIGHTS_BY_NAME = frozenset({"imagenet", "none"})  # anything else is a path
CONVERT = (
    "import torch, safetensors.torch as s; s.save_file(torch.load('IN.pth', weights_only=True), 'OUT.safetensors')"
)
# Another name, more folds, a fold beside them or a GPU's equal bits leave each fold's result as it is.
NOT_PART_OF_RESULT = frozenset({"run", "folds", "unseen_looks", "deterministic"})


class Run(Settings):
    """Every setting that changes what a training run gives. Defaults, also of older files, are the seed recipe's."""

    run: str = "one_model"  # names the folder under runs/
    architecture: str = "tf_efficientnet_lite0"  # any timm name, or custom_model
    # three: one for each attribute; frozen: logistic regressions on what the network knew before, in one pass
    head: Literal["linear", "attention", "three", "three_attention", "frozen"] = "linear"
    aux_loss: NotNegative = 0.0  # weight of the loss of inception_v3's auxiliary classifier; 0: it has none
    weights: str = "imagenet"  # imagenet, none, or the path of a .safetensors file
    image_width: Pixels = 224  # of what the network sees
    image_height: Pixels = 224  # need not be the width
    resize: Literal["stretch", "crop", "pad"] = "stretch"  # to that size; crop: the middle; pad: black bars
    image_channels: int = 3  # 1, 3 or 4: grey, colour, or red, green, blue and yellow as data.rgby combines them
    per_image_norm: bool = False  # each photo's channels get mean 0 and deviation 1, not the data set's
    folds: tuple[Annotated[int, Field(ge=0, le=999)], ...] = ()  # empty: all of them
    label_source: Literal["clean", "given"] = "clean"  # as label cleaning left them, or as the data set gives them
    pseudo_labels: str = ""  # a finished run whose pseudo-labels, made by ensemble.self_training, join training
    pseudo_weight: Annotated[float, Field(gt=0, le=1)] = 0.5  # of a pseudo-labeled photo's loss; a labeled one's is 1
    epochs: Count = 2  # passes over the train photos
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16  # photos at once
    accumulate_steps: Annotated[int, Field(ge=1, le=1000)] = 1  # so many batches an update of the weights
    optimizer: Literal["sgd", "adamw"] = "sgd"  # sgd: with momentum
    learning_rate: Positive = 0.001  # the peak, where the schedule has one
    momentum: Share = 0.9  # of SGD; AdamW's first beta
    weight_decay: NotNegative = 0.0  # of weights; biases and normalisation have none
    clip_grad_norm: NotNegative = 0.0  # the gradient's norm is cut to this before an update; 0: never
    head_learning_rate_scale: Positive = 1.0  # the new last layer learns this many times faster
    schedule: Literal["constant", "cosine", "one_cycle", "step", "plateau"] = "constant"  # from the peak on
    warmup_epochs: NotNegative = 0.0  # in which the rate rises from 0 to its peak; a share of one will do
    step_epochs: CountOrNone = 0  # of the schedule step: a tenth of the rate after so many each; 0: a third of all
    plateau_epochs: Count = 2  # of the schedule plateau: a tenth of the rate after so many without a better macro F1
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # each layer's learning rate over that of the one after it
    frozen_epochs: CountOrNone = 0  # at the start only the last layer learns
    frozen_stages: CountOrNone = 0  # so many of the network's first stages never learn: as pretrained, and quicker
    early_stop_epochs: CountOrNone = 0  # stop after so many without a better macro F1; 0: never
    sampling: Literal["shuffle", "weighted"] = "shuffle"  # weighted: all classes equally often, with replacement
    loss: Literal["cross_entropy", "focal", "f1", "f1_cross_entropy"] = "cross_entropy"  # f1: 1 - soft macro F1
    focal_gamma: NotNegative = 2.0  # of the focal loss; 0 makes it cross-entropy
    label_smoothing: Share = 0.0  # like class_balance, not of the soft macro F1 in the losses f1 and f1_cross_entropy
    attribute_label_smoothing: tuple[Share, ...] = ()  # one number for each attribute; empty: none
    class_balance: Literal["none", "sqrt", "full"] = "none"  # class weights in the loss: 1, 1/sqrt(count), 1/count
    attribute_loss: NotNegative = 0.0  # weight of the attributes' losses beside that of the classes; three heads: 0
    head_loss_weights: tuple[NotNegative, ...] = ()  # where each attribute has a head; empty: all 1
    age_target: Literal["classes", "ordinal"] = "classes"  # ordinal: its own head learns from the number itself
    old_from: int = 0  # years from which training, not scoring, counts a person as the oldest; 0: the last edge
    augmentation: str = "flip"  # none, flip, faces, randaugment, trivialaugment, seed, or a policy's .json
    mixing: Literal["none", "mixup", "cutmix", "cutmix_half", "cutmix_old"] = "none"  # old: with an oldest person
    mixing_alpha: Positive = 1.0  # shares come from Beta(alpha, alpha): 1 any alike, below 1 mostly small ones
    mixing_probability: Annotated[float, Field(ge=0, le=1)] = 0.5  # share of the photos that are mixed
    dropout: Share = 0.0  # before the last layer
    drop_path: Share = 0.0  # of residual branches left out in training (stochastic depth, Huang et al. 2016)
    checkpoint_activations: bool = False  # computed again for the gradient: a third more time, far less memory
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: a half type on a GPU
    compile_network: bool = False  # worth it on a GPU for runs of many minutes
    deterministic: bool = False  # on a GPU: the same bits each time, slower
    keep_epochs: CountOrNone = 0  # of the last so many epochs the weights stay on disk, to be averaged
    ema_decay: Share = 0.0  # of a moving average of the weights, such as 0.999 a step; 0: none
    checkpoint_choice: Literal["best", "last", "swa", "ema"] = "last"  # best: by macro F1 on the validation fold
    unseen_looks: bool = False  # trains its first fold once more without some looks, to be asked about those
    seed: Seed = 0  # of first weights, order, augmentation and mixing

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_names()
        self._check_attributes()
        self._check_number()
        at_most, need = f"at most epochs ({self.epochs})", "above 0 where checkpoint_choice is"
        self.require("warmup_epochs", self.warmup_epochs <= self.epochs, at_most)
        self.require("frozen_epochs", self.frozen_epochs <= self.epochs, at_most)
        self.require("image_channels", self.image_channels in (1, 3, 4), "1, 3 or 4")
        self.require("folds", len(set(self.folds)) == len(self.folds), "without repeats")
        once = self.sampling != "weighted" or self.class_balance == "none"
        self.require("class_balance", once, "none where sampling is weighted, or rare classes would count twice over")
        self.require("epochs", self.epochs == 1 or self.head != FROZEN, "1 where head is frozen, which takes one pass")
        plain = not self.per_image_norm and self.age_target == "classes"
        self.require("head", plain or self.head != FROZEN, "another one with per_image_norm or age_target: ordinal")
        self.require("ema_decay", self.ema_decay or self.checkpoint_choice != "ema", f"{need} ema")
        self.require("keep_epochs", self.keep_epochs or self.checkpoint_choice != "swa", f"{need} swa")
        return self

    def _check_names(self) -> None:
        safe_name("run", self.run)
        if self.pseudo_labels:
            safe_name("pseudo_labels", self.pseudo_labels)
        self.require("pseudo_labels", self.pseudo_labels != self.run, "the name of another run, or empty")
        known = self.augmentation in AUGMENTATIONS or self.augmentation.endswith(".json")
        readable = self.weights in WEIGHTS_BY_NAME or self.weights.endswith(".safetensors")
        self.require("weights", readable, f'imagenet, none, or a .safetensors file; make one: python -c "{CONVERT}"')
        presets = f"one of {', '.join(AUGMENTATIONS)}, or the path of a policy's .json file"
        self.require("augmentation", known, presets + did_you_mean(self.augmentation, AUGMENTATIONS))

    def _check_attributes(self) -> None:
        """Lists of a number for each attribute, and how heads and losses of attributes go together."""
        each = f"empty or {len(labels.names())} numbers, for {', '.join(labels.names())}"
        weights, three = self.head_loss_weights, self.by_attribute
        for name in ("attribute_label_smoothing", "head_loss_weights"):
            self.require(name, len(getattr(self, name)) in (0, len(labels.names())), each)
        self.require("head_loss_weights", not weights or any(weights), f"{each}, one of them above 0")
        self.require("head_loss_weights", three or set(weights) <= {1.0}, "empty unless head is three")
        alone = f"0 where head is {self.head}, which learns the attributes alone: weigh those by head_loss_weights"
        self.require("attribute_loss", not three or self.attribute_loss == 0, alone)

    def _check_number(self) -> None:
        """Settings about the attribute that is a number, such as an age in years."""
        number, ordinal = labels.number(), self.age_target == "ordinal"
        none = "since no attribute here is a number cut at edges"
        self.require("age_target", number or not ordinal, f"classes, {none}")
        self.require("mixing", number or self.mixing != "cutmix_old", f"another one, {none}")
        self.require("old_from", number or not self.old_from, f"0, {none}")
        self.require("age_target", not ordinal or self.by_attribute, "classes unless head is three")
        deaf = "cross_entropy where age_target is ordinal, since the other heads alone would learn by another"
        self.require("loss", not ordinal or self.loss == "cross_entropy", deaf)
        if number and self.old_from:
            least, most = [number.limits[0], *number.edges][-2] + 1, number.edges[-1]
            wanted = f"0, which is {most}, or from {least} to {most}, the last edge of {number.name}"
            self.require("old_from", least <= self.old_from <= most, wanted)

    def photos_a_step(self) -> int:
        """How many photos an update of the weights is made of."""
        return self.batch_size * self.accumulate_steps

    @property
    def by_attribute(self) -> bool:
        """Whether each attribute has a head of its own, which gives the classes together."""
        return self.head in ("three", "three_attention")

    def last_edge(self) -> int:
        """From which number, such as years, training counts the last group; 0 without an attribute that is a number."""
        return self.old_from or (labels.number().edges[-1] if labels.number() else 0)

    def attribute_weights(self) -> tuple[float, ...]:
        """The weight of each attribute's loss, where each has a head."""
        return self.head_loss_weights or (1.0,) * len(labels.names())


_SHOWN = ("gallery_photos", "shown_disagreements", "explained_mistakes", "neighbours")
_EPOCHS = ("average_epochs", "first_epoch", "last_epoch", "verdict_epochs")
# Of notebook parameters, whether they are settings of a run or of nothing.
BOUNDS = {name: Annotated[one.annotation, *one.metadata] for name, one in Run.model_fields.items() if one.metadata}
BOUNDS |= dict.fromkeys((*_SHOWN, *_EPOCHS, "verdict_seeds", "verdict_policies", "predict_batch"), CountOrNone)
BOUNDS["processes"] = Annotated[int, Field(ge=1, le=64)]
BOUNDS |= {"pseudo_threshold": Annotated[float, Field(ge=0, le=1)], "features_width": Pixels, "features_height": Pixels}
BOUNDS["pseudo_class_share"] = Annotated[float, Field(gt=0, le=1)]
BOUNDS |= {"fold_count": Annotated[int, Field(ge=2, le=999)], "backbones": Annotated[list[str], Field(min_length=1)]}


def check_bounds(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for a parameter of a notebook that is too small or too large to be meant, with the bound."""
    for name, kind in BOUNDS.items():
        if name in parameters:
            checked(name, parameters[name], kind)


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two runs' settings in a way that changes results: `epochs: 2 → 4`.

    More epochs are no change where the schedule does not look at their number: a finished run trains on.
    """
    old, new = (_with_defaults(settings) for settings in (old, new))
    open_ended = new["schedule"] in ("constant", "plateau") or (new["schedule"] == "step" and new["step_epochs"])
    if open_ended and new["epochs"] > old["epochs"]:
        old = old | {"epochs": new["epochs"]}
    names = [name for name in {**old, **new} if name not in NOT_PART_OF_RESULT and old.get(name) != new.get(name)]
    why = {} if open_ended else {"epochs": f" (which the schedule {new['schedule']} depends on)"}
    return [f"{name}: {old.get(name)} → {new.get(name)}{why.get(name, '')}" for name in names]


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with every field, and defaults that depend on the attributes as what they stand for."""
    full = {**Run().settings(), **settings}  # a later version's default does what was done before it
    run = Run.model_construct(old_from=full["old_from"], head_loss_weights=tuple(full["head_loss_weights"]))
    return full | {"old_from": run.last_edge(), "head_loss_weights": list(run.attribute_weights())}


class ChangedSettingsError(ValueError):
    """A run's folder holds results of other settings or other photos."""


def import_plugins(names: Sequence[str]) -> None:
    """Import modules, the project folder's too, whose networks timm is to know; ValueError names one that fails."""
    if str(files.PROJECT) not in sys.path:
        sys.path.append(str(files.PROJECT))
    for name in checked("plugins", names, list[str]):
        try:
            importlib.import_module(name)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise ValueError(f"plugins: the module {name!r} cannot be imported: {cause}") from error
