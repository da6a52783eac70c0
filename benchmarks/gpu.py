"""What a GPU makes of this package: layers, networks in our trainer, and images that lie on the device.

    python benchmarks/gpu.py                   # all parts, nine minutes at most
    python benchmarks/gpu.py layers            # in two halves
    python benchmarks/gpu.py networks loaders
    python benchmarks/gpu.py --device cpu --quick

Competitors take turns in one run. Where the time is up, a table says "not measured". On the CPU the script only shows
that it runs: its figures mean nothing. What must hold on a GPU, and is no figure, is in `pytest -m gpu`.
"""

import argparse
import time

import torch
from common import machine
from on_device import layers, loaders, networks
from on_device.measuring import Place

PARTS = {"networks": networks, "loaders": loaders, "layers": layers}
LONGEST = 9 * 60  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; without one, all of them")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU: nothing was measured; --device cpu --quick shows that the script runs")
    place = Place(torch.device(given.device), given.quick, time.monotonic() + LONGEST)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "no GPU: these figures mean nothing"
    print(f"{name}; {machine()}\n")
    for part in given.parts or PARTS:
        for text in PARTS[part].tables(place):
            print(f"## {part}\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
