"""The catalogue of norms as a table, made from what the options and their layers say.

python scripts/norms_page.py > docs/norms.md
"""

import inspect

from hydra.utils import instantiate

from normlab.config.options import options, read_option
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import Declaration, declaration
from normlab.norms.common.replace import is_drop_in

FEATURES = 64  # the channels of the layers that are asked

HEAD = """\
# The norms

Made by `python scripts/norms_page.py` from the options' docstrings and their layers' declarations. `norm=<name>`
chooses one; formula, shapes, source and when it does not help stand in the file of its name in `src/normlab/norms/`.
A drop-in replaces the norms of any network; `folds`: in evaluation the layer before it can absorb it; `syncs`: its
statistics can be taken over several processes; `activation`: it contains its own.

| norm | | y | statistics over | evaluation uses | | space | keys |
|---|---|---|---|---|---|---|---|
"""


def catalogue() -> str:
    """The page, in Markdown."""
    return HEAD + "".join(_row(name) for name in options("norm"))


def _row(name: str) -> str:
    yaml = read_option("norm", name)
    option = instantiate(yaml)
    has_layer = [dims for dims in range(4) if _layer(option, dims) is not None]
    found = declaration(option(FEATURES, dims=2))
    over = "nothing" if found is None or not found.axes else " and ".join(sorted(found.axes))
    over += " of each group" if found is not None and found.groups > 1 else ""
    over += f", {found.dimension} channels jointly" if found is not None and found.dimension > 1 else ""
    running = found is not None and found.running_stats
    formula = (inspect.getdoc(type(option)) or "").split("\n\n")[0].split(" with ")[0].split(". ")[0].split("; ")[0]
    keys = ", ".join(f"`{key}`" for key in yaml if not str(key).startswith("_"))
    evaluation = "running statistics" if running else "the same as training"
    dims = f"{has_layer[0]} to {has_layer[-1]}"
    title = (inspect.getdoc(inspect.getmodule(type(option))) or "").split("\n")[0].rstrip(".")
    cells = [f"`{name}`", title, formula.replace("\n", " ").replace("|", "\\|"), over, evaluation]
    cells += [", ".join(_abilities(option, found)), dims, keys]
    return "| " + " | ".join(cells) + " |\n"


def _abilities(option: Norm, found: Declaration | None) -> list[str]:
    drop_in = is_drop_in(option, option(FEATURES, dims=2))
    declared = {
        "drop-in": drop_in,
        "folds": found is not None and found.foldable,
        "syncs": found is not None and found.synchronisable,
        "activation": option.carries_activation,
    }
    return [ability for ability, has in declared.items() if has]


def _layer(option: Norm, dims: int):
    try:
        return option(FEATURES, dims)
    except ValueError:
        return None


if __name__ == "__main__":
    print(catalogue(), end="")
