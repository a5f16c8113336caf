"""Cases of hostile and foreign files: what `verify` and `predict` do with each, in a process with limits."""

from tests.cases.case import Case
from tests.cases.hostile import VERDICTS, Verdict

FOLDER, HONEST, PICTURE = "hostile", "honest.onnx", "picture.png"
HOLDS = "^verdict +holds$"


def _case(name: str, verdict: Verdict) -> Case:
    file = f"{FOLDER}/{name}.onnx"
    refused = verdict == "refused"
    return Case(
        f"hostile {name}",
        f"verify {file}; predict {file} {PICTURE} --format table",
        "verify and predict refuse it in one line" if refused else "refused, or verified and predicted",
        lacks=(HOLDS,) if refused else (rf"(?s){HOLDS}.*^hallmark: ",),
        code=(1, 2) if refused else (0, 1, 2),
        isolated=True,
    )


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
