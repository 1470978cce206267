"""Notebook servers as pods."""

from __future__ import annotations

from llmos_spawners.kubernetes.spawner import LLMOSKubeSpawner

__all__ = ["LLMOSKubeSpawner"]
