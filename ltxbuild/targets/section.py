"""What a recipe says of the machine that its programs run on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ltxbuild.plan.profiles import PROFILES
from ltxbuild.section import Section

Platform = Literal["cpu", "cuda", "tpu", "neuron"]
FlagValue = bool | int | float | str


class TargetSection(Section):
    """What the programs run on."""

    platform: Platform
    topology: str | None = Field(
        None, description="device topology for cross-compiling, e.g. v6e:2x4 or h200"
    )
    tensor_parallel: Annotated[int, Field(ge=1)] = Field(1, description="devices that split heads")
    context_parallel: Annotated[int, Field(ge=1)] = Field(1, description="devices that split video tokens")
    profile: str = Field("single", description=f"how components are split: {', '.join(PROFILES)}")
    isa: Literal["native", "sse4", "avx2", "avx512"] = Field(
        "native", description="instruction-set level of CPU programs: this machine's, or a portable one"
    )
    flags: dict[str, FlagValue] = Field(default_factory=dict, description="compiler flags")
    compiler: str | None = Field(
        None,
        description="version of neuronx-cc to compile with, or whose NEFFs are imported",
    )

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, value: str) -> str:
        if value not in PROFILES:
            raise ValueError(f"unknown profile, allowed: {', '.join(PROFILES)}")
        return value

    @model_validator(mode="after")
    def _compiler_fits_platform(self) -> TargetSection:
        if self.compiler is not None and self.platform != "neuron":
            raise ValueError(f"compiler is for platform neuron; that of {self.platform} is a package")
        return self

    @property
    def degrees(self) -> dict[str, int]:
        """Devices along each mesh axis, slowest first."""
        return {"cp": self.context_parallel, "tp": self.tensor_parallel}

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.context_parallel * self.tensor_parallel
