"""A custom transfer agent (git-lfs, docs/custom-transfers.md), in the place of `git-xet`.

git-lfs calls it where the server asks for its name. It moves each object by the URL that the
server gave, as git-lfs itself would, and notes the object's oid in the file that is its argument.
With the further argument `silent`, it reports no progress, which git-lfs does not ask for.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any


def main(log: Path, is_silent: bool) -> None:
    """Answer git-lfs, a line of JSON for each of its own, until it says that it is done."""
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["event"] == "terminate":
            return
        if asked["event"] == "init":
            answer: dict[str, Any] = {}
        else:
            with log.open("a") as file:
                file.write(f"{asked['event']} {asked['oid']}\n")
            progress = {"event": "progress", "oid": asked["oid"], "bytesSoFar": asked["size"]}
            if not is_silent:
                print(json.dumps({**progress, "bytesSinceLast": asked["size"]}), flush=True)
            answer = {"event": "complete", "oid": asked["oid"], **_move(asked)}
        print(json.dumps(answer), flush=True)


def _move(asked: dict[str, Any]) -> dict[str, str]:
    action = asked["action"]
    content = Path(asked["path"]).read_bytes() if asked["event"] == "upload" else None
    method = "GET" if content is None else "PUT"
    request = urllib.request.Request(
        action["href"], content, headers=action.get("header") or {}, method=method
    )
    with urllib.request.urlopen(request) as response:
        received = response.read()
    if content is not None:
        return {}
    with tempfile.NamedTemporaryFile(dir=".git", delete=False) as file:
        file.write(received)
    return {"path": file.name}


if __name__ == "__main__":
    main(Path(sys.argv[1]), "silent" in sys.argv[2:])
