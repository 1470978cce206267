"""The events of a ModelService, each recorded once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from llmos.resources import Condition, ModelService
from llmos.resources.base import ObjectMeta
from llmos.resources.modelservice import ModelServiceSpec, ModelServiceStatus
from llmos.resources.workload import ReplicaStatus
from llmos_hub.controllers.modelservice.events import compare

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHOSEN = Condition(
    type="ModelRecognised", status="True", reason="Generate", message="custom: spec.args says what to run",
    last_transition_time=NOW,
)  # fmt: skip


def service(status: ModelServiceStatus) -> ModelService:
    spec = ModelServiceSpec(engine="custom", args=["serve", "--port", "{port}"])
    return ModelService(metadata=ObjectMeta(name="chat", namespace="user-ada"), spec=spec, status=status)


def replica(restarts: int = 0, started_at: datetime = NOW) -> ReplicaStatus:
    return ReplicaStatus(id="chat-1", phase="Ready", restarts=restarts, started_at=started_at)


def told(old: ModelServiceStatus, new: ModelServiceStatus) -> list[tuple[str, str]]:
    return [(each.reason, each.message) for each in compare(service(old), new, None)]


def test_the_engine_is_told_with_the_acceptance_where_both_are_known_at_once() -> None:
    new = ModelServiceStatus(phase="Starting", observed_generation=1, conditions=[CHOSEN])
    message = "Serving a command of one's own as chat. custom: spec.args says what to run."
    assert told(ModelServiceStatus(), new) == [("Accepted", message)]


def test_the_engine_is_told_alone_where_the_model_had_to_be_fetched_first() -> None:
    old = ModelServiceStatus(phase="Downloading", observed_generation=1)
    new = ModelServiceStatus(phase="Starting", observed_generation=1, conditions=[CHOSEN])
    assert told(old, new) == [("EngineChosen", "custom: spec.args says what to run.")]


def test_a_start_is_not_told_beside_the_answer_it_led_to() -> None:
    old = ModelServiceStatus(phase="Starting", observed_generation=1, started_at=NOW)
    after = NOW + timedelta(seconds=2)
    new = ModelServiceStatus(
        phase="Ready", observed_generation=1, started_at=NOW, ready_at=after, ready_replicas=1,
        replica_statuses=[replica()],
    )  # fmt: skip
    assert told(old, new) == [("Ready", "1 replica answers after 2.0 s.")]
    starting = new.model_copy(update={"phase": "Starting"})
    assert told(old, starting) == [("ReplicaStarted", "chat-1 was started.")]


def test_a_start_after_a_crash_is_always_told() -> None:
    old = ModelServiceStatus(phase="Starting", observed_generation=1, replica_statuses=[replica()])
    again = replica(restarts=1, started_at=NOW + timedelta(seconds=5))
    new = ModelServiceStatus(phase="Ready", observed_generation=1, replica_statuses=[again], ready_replicas=1)
    assert [reason for reason, _ in told(old, new)] == ["Crashed", "ReplicaStarted", "Ready"]
