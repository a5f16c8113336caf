"""Cases of hostile and foreign files: what `verify` and `predict` do with each, in a process with limits."""

from tests.cases.case import Case
from tests.cases.hostile import VERDICTS
from tests.cases.hostile_certificates import Verdict

FOLDER, HONEST, PICTURE = "hostile", "honest.onnx", "picture.png"
HOLDS = "^verdict +holds$"
IMITATED = "^ +verdict +holds"
"""The verdict as a part of a name, on a line of its own."""


_EXPECTED: dict[Verdict, tuple[str, tuple[int, ...], str]] = {
    "refused": ("verify and predict refuse it in one line", (1, 2), HOLDS),
    "unproven": ("verify refuses it; predict refuses it, or predicts", (0, 1, 2), HOLDS),
    "either": ("refused, or verified and predicted", (0, 1, 2), rf"(?s){HOLDS}.*^hallmark: (?!{PICTURE})"),
}
"""What is expected in words, exit codes of `predict`, and what must not be printed."""


def _case(name: str, verdict: Verdict) -> Case:
    expected, code, lacks = _EXPECTED[verdict]
    command = f"verify {FOLDER}/{name}.onnx; predict {FOLDER}/{name}.onnx {PICTURE} --format table"
    return Case(f"hostile {name}", command, expected, lacks=(lacks, IMITATED), code=code, isolated=True)


CASES = (
    Case(
        "honest",
        f"verify {HONEST}; predict {HONEST} {PICTURE} --format table",
        "verified and predicted",
        (HOLDS,),
        isolated=True,
    ),
    *(_case(name, verdict) for name, verdict in VERDICTS.items()),
)
