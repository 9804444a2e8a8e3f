"""What a policy search is: one frozen, checked dataclass."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

from mask_lib import config, policies

Kind = Literal["density", "halving", "random"]
NOT_OF_THE_NETWORK = ("run", "folds", "augmentation")  # settings of a run that the search sets itself


@dataclasses.dataclass(frozen=True)
class Search:
    """Every setting of a search. However it is built, types and ranges are checked; ValueError names the field."""

    search_kind: Kind = "density"
    search_network: dict[str, Any] = dataclasses.field(default_factory=dict)  # settings of a run, of each training
    search_folds: tuple[int, ...] = (0,)  # density: a network for each; else only the first is trained
    search_seed: int = 0
    policy_count: int = 50  # beside no augmentation
    merged_count: int = 5  # the best so many become one policy; halving trains at least as many to the end
    policy_operations: tuple[str, ...] = policies.SEED
    sub_policy_count: int = 5
    steps_each: int = 2  # operations of a sub-policy
    smoothing_epochs: int = 5  # the reward of a training is its last epochs' mean macro F1
    halving_factor: int = 3  # of the policies that reach a rung one in so many goes on, for so many times the epochs
    halving_first_epochs: int = 1  # the first rung
    density_epochs: int = 0  # of the networks trained once; 0: as many as any training here
    density_views: int = 2  # of each photo under a policy

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind = dict if field.name == "search_network" else field.type
            object.__setattr__(self, field.name, config.checked(field.name, getattr(self, field.name), kind))
        at_least = {"policy_count": 1, "merged_count": 1, "sub_policy_count": 1, "steps_each": 1, "search_seed": 0}
        at_least |= {"smoothing_epochs": 1, "halving_factor": 2, "halving_first_epochs": 1, "density_views": 1}
        for name, least in (at_least | {"density_epochs": 0}).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least {least}")
        if not self.search_folds:
            raise ValueError("search_folds = []: name the folds to search on, such as [0]")
        try:
            policies.Policy("these", tuple((policies.Step(name),) for name in self.policy_operations))
        except ValueError as error:
            raise ValueError(f"policy_operations, {error}") from None
        if self.network().checkpoint_choice == "swa":
            advice = "no weights are averaged in a search; write best, last or ema"
            raise ValueError(f"search_network, checkpoint_choice = 'swa': {advice}")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """A search from a mapping that holds its fields among others, such as a notebook's `globals()`."""
        return cls(**{field.name: parameters[field.name] for field in dataclasses.fields(cls)})

    def network(self, **changes: Any) -> config.Run:
        """The run that each training of the search is, with `changes`. Raises ValueError for what is no setting."""
        own = sorted(set(self.search_network) & set(NOT_OF_THE_NETWORK))
        if own:
            raise ValueError(f"search_network: the search sets {', '.join(own)} itself")
        return config.Run.from_settings({**self.search_network, "augmentation": "none", **changes})

    def network_for(self, epochs: int, **changes: Any) -> config.Run:
        """The same, trained for so many epochs; 0: for as many as any training here."""
        return self.network(**({"epochs": epochs} if epochs else {}), **changes)

    def space(self) -> policies.Space:
        """What policies are drawn from. What is never taken is what recognisability alone would like best."""
        drawn = policies.Space(self.policy_operations, self.sub_policy_count, self.steps_each)
        if self.search_kind != "density":
            return drawn
        return dataclasses.replace(drawn, probabilities=tuple(share for share in drawn.probabilities if share > 0))

    def recorded(self, data: str) -> dict[str, Any]:
        """What a journal must have been made with to go on: settings that change what a trial is worth."""
        # Halving trains to the end at least as many as are merged; elsewhere the number changes no trial.
        unused = ("policy_count", "search_network", *(() if self.search_kind == "halving" else ("merged_count",)))
        settings = {name: value for name, value in vars(self).items() if name not in unused}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        return {**plain, **self.network().settings(), "run": "", "the photos, their labels or the split": data}
