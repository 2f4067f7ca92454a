"""Plans of merges of small adapters, from manifests alone."""

from __future__ import annotations

from dataclasses import replace

from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.planner import plan
from git_theta.merge.planning.policy import Policy, method_lookup
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.rules import parse_rule
from tests.support.manifests import manifest, tensor, versions

A, B = "base_model.model.l.q.lora_A.weight", "base_model.model.l.q.lora_B.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}


def pair(
    word: str, rank: int = 2, dtype: str = "F32", ins: int = 5, outs: int = 3, at: str = "l.q"
):
    """Entries of a pair of factors whose content ``word`` stands for."""
    names = (f"base_model.model.{at}.lora_{role}.weight" for role in "AB")
    shapes = ((rank, ins), (outs, rank))
    return [tensor(n, word, dtype, shape) for n, shape in zip(names, shapes, strict=True)]


def decide(found: Versions, *rules: str, **options) -> Plan:
    policy = Policy([parse_rule(rule) for rule in rules], method_lookup(found), **options)
    return plan(found, policy, lambda entry: "")


def configured(found: Versions, *configs, base=CONFIG) -> Versions:
    """With configurations of the contributors' adapters; CONFIG for all unless given."""
    given = configs or [CONFIG] * len(found.contributors)
    sides = zip(found.contributors, given, strict=True)
    contributors = tuple(replace(side, adapter=config) for side, config in sides)
    return replace(found, contributors=contributors, base_adapter=base)


def three(base: str = "a", ours: str = "b", theirs: str = "c", **shape) -> Versions:
    return versions(*(manifest(*pair(word, **shape)) for word in (base, ours, theirs)))


def reason(found: Versions, *rules: str) -> str:
    conflicts = decide(found, *(rules or ["*=svd"])).conflicts
    assert len(conflicts) == 1
    return conflicts[0].reason
