"""The last figures of `growth.py` as a picture, docs/growth.png.

python bench/growth_plot.py        # needs matplotlib: pip install -e '.[bench]'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LABELS = {"seconds": "time", "memory": "scratch memory", "operations": "operations"}


def main() -> None:
    """Draw each series relative to its smallest size, on logarithmic axes."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SystemExit("growth_plot.py draws with matplotlib: pip install -e '.[bench]'") from error
    records: list[Any] = json.loads((ROOT / "bench/results/growth.json").read_text(encoding="utf-8"))
    series = records[-1]["notes"]
    figure, axes = plt.subplots(1, len(series), figsize=(3.2 * len(series), 3.2), sharey=True)
    for plot, (name, told) in zip(axes, series.items(), strict=True):
        first = told["points"][0]
        sizes = [point["size"] for point in told["points"]]
        for what, label in LABELS.items():
            values = [point[what] / first[what] for point in told["points"]]
            plot.loglog(sizes, values, marker="o", label=f"{label}: {told['exponents'][what]}")
        plot.set_title(name)
        plot.set_xticks(sizes, [str(size) for size in sizes], rotation=45)
        plot.minorticks_off()
        plot.legend(title="exponent", fontsize="small")
    axes[0].set_ylabel("times that of the smallest")
    figure.tight_layout()
    figure.savefig(ROOT / "docs/growth.png", dpi=110)


if __name__ == "__main__":
    main()
