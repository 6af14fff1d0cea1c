"""Cut this folder's part out of the full reference set.

    python tests/golden/make_golden.py ../shared/golden

The full set holds 127 outputs of the authors' 4.x networks. This folder keeps the list of all of them, and the outputs
of those that check every model and every way through the forward pass at the least size. Of the 48 of older generations
it keeps each generation's at 45x70.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LARGEST_BYTES = 3_000_000


def kept(case: dict[str, Any]) -> bool:
    """Every model at 45x70, both second tries of 4.0, and one case of each flow scale and kind of ensemble."""
    if (case["height"], case["width"]) == (45, 70) or case.get("boost", 1.0) != 1.0:
        return True
    scaled = (case["version"], case.get("scale", 1.0)) in {
        ("4.6", 0.25),
        ("4.25", 0.5),
        ("4.22.lite", 2.0),
        ("4.6", 4.0),
    }
    return scaled or (case.get("ensemble", False) and case["version"] in {"4.6", "4.13"})


def is_kept_legacy(key: str) -> bool:
    """45x70 as published, at the middle and at 0.3, and with both modes of test-time augmentation."""
    return key.endswith(("_45x70_t0.5", "_45x70_t0.3", "_45x70_t0.5_tta_temporal"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", type=Path, help="folder of the full reference set")
    full: Path = parser.parse_args().full
    cases = json.loads((full / "cases.json").read_text(encoding="ascii"))
    (HERE / "cases.json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n", encoding="ascii")
    with np.load(full / "outputs.npz") as stored:
        outputs = {case["key"]: stored[case["key"]] for case in cases if kept(case)}
    target, legacy = HERE / "outputs.npz", HERE / "legacy_outputs.npz"
    np.savez_compressed(target, **outputs)
    with np.load(full / "legacy" / "outputs.npz") as stored:
        np.savez_compressed(legacy, **{key: stored[key] for key in stored.files if is_kept_legacy(key)})
    size = target.stat().st_size + legacy.stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"the outputs have {size} bytes, more than {LARGEST_BYTES}; keep fewer cases")
    for path in (full / "outputs.npz", full / "legacy" / "outputs.npz", HERE / "cases.json", target, legacy):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{digest}  {path.name}, {path.stat().st_size} bytes{'' if path.parent == HERE else ' (full set)'}")
    print(f"{len(outputs)} outputs of {len(cases)} cases")


if __name__ == "__main__":
    main()
