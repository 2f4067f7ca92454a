"""Why a host refuses, in plain words, by what git and git-lfs print of its answers.

What a host says chooses between the texts here; none of it becomes part of a command to type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from git_theta.errors import ThetaError

_LINES_SHOWN = 10

# git-lfs counts there, and the reason comes after it.
_NOISE = re.compile(r"(Uploading|Downloading|Locking) .*\d+%|goroutine |\t|created by ")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What words of git or git-lfs mean, and what to do about it."""

    pattern: re.Pattern[str]
    meaning: str
    hint: str


# The first that is found counts. git-lfs 3.3.0 meets a 429 for an object that has no Retry-After
# with a panic (tq/basic_upload.go:129), and calls one that has it "LFS: Error" when it gives up.
_REFUSALS = (
    Refusal(
        re.compile(
            r"[Rr]ate limit|\b429\b|Too Many Requests|LFS: Error$|index out of range .*DoTransfer",
            re.DOTALL | re.MULTILINE,
        ),
        "the host asks to wait: too many requests (HTTP 429)",
        "wait some minutes and repeat the command, which sends only what is missing; fewer "
        "requests at a time: git config lfs.concurrenttransfers 2; fewer objects from now on: "
        "git config theta.objectSize 1g",
    ),
    Refusal(
        re.compile(
            r"could not read (Username|Password)|credentials for .* not found|\b401\b"
            r"|Authentication (required|failed)"
        ),
        "the host asks for a name and a password or token (HTTP 401)",
        "set up a credential helper: git help credentials; most hosts want a token as the password",
    ),
    Refusal(
        re.compile(r"Authorization error|\b403\b"),
        "the host knows you, but does not allow this (HTTP 403)",
        "ask the repository's owner for write permission; a stored password may be another "
        "user's: git config --show-origin --get-all credential.helper",
    ),
    Refusal(
        re.compile(r"Insufficient server storage|\b507\b"),
        "the host has no space left for this repository (HTTP 507)",
        "make space there, or buy it; then repeat the command",
    ),
    Refusal(
        re.compile(r"Size must be less|[Tt]oo [Ll]arge|HTTP 413"),
        "the host does not accept objects of this size",
        "git config theta.objectSize 32m, for what is added from now on",
    ),
    Refusal(
        re.compile(r"not found|\b404\b"),
        "the host finds nothing there (HTTP 404)",
        "git remote -v; git lfs env shows where objects go (Endpoint=); hosts also hide what you "
        "may not see in this way",
    ),
    Refusal(
        re.compile(
            r"onnection refused|[Ff]ailed to connect|no such host|[Cc]ould not resolve"
            r"|timed? ?out|unreachable"
        ),
        "the host cannot be reached",
        "git remote -v; git lfs env shows where objects go (Endpoint=)",
    ),
    Refusal(
        re.compile(r"Server error|Expected JSON|HTTP 5\d\d|Not Implemented|error: 5\d\d"),
        "what answers there is not a Git LFS server, or a faulty one",
        "git lfs env shows where objects go (Endpoint=); git lfs logs last",
    ),
)


def find(words: str) -> Refusal | None:
    """Return what words of git or git-lfs mean; ``None`` where they are not known."""
    return next((refusal for refusal in _REFUSALS if refusal.pattern.search(words)), None)


def words_of(error: ThetaError) -> str:
    """Return all that a failed command printed."""
    return "\n".join((error.message, *error.details))


def lines(words: str) -> Sequence[str]:
    """Return the lines of ``words`` that say something, the first of them only."""
    said = [line for line in words.strip().splitlines() if line.strip()]
    return [line for line in said if not _NOISE.match(line)][:_LINES_SHOWN]
