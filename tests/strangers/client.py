"""A day with the API through a client that openapi-python-client made of docs/openapi.json.

    client.py PACKAGE_FOLDER < demo.json

Nothing here reads JSON of the API by hand: what the client does not understand fails.
"""

import datetime
import importlib
import json
import sys
import time

sys.path.insert(0, sys.argv[1])
from supervisor import AuthenticatedClient  # noqa: E402
from supervisor.models import (  # noqa: E402
    BackupChange,
    BackupStatus,
    BackupType,
    NewBackup,
    NewRestore,
    NewSchedule,
    Problem,
    ProblemCode,
    RestoreStatus,
)

demo = json.load(sys.stdin)
deployment = demo["deployment_id"]
node = demo["nodes"][0]["node_id"]
assert deployment > 2**53 and node > 2**53


def client(key):
    return AuthenticatedClient(
        base_url=demo["supervisor_url"],
        token=key,
        prefix="",
        auth_header_name="ld-api-key",
        raise_on_unexpected_status=True,
    )


manager = client(demo["keys"]["manage"])


def call(module, *arguments, by=manager, **named):
    """The reply, typed."""
    module = importlib.import_module(f"supervisor.api.{module}")
    return module.sync_detailed(*arguments, client=by, **named)


def answered(reply, status, what=None):
    assert reply.status_code == status, (reply.status_code, reply.content)
    if what is not None:
        assert isinstance(reply.parsed, what), reply.parsed
    return reply


def until(what, look, good):
    """Looks until it is good, for a minute at most."""
    for _ in range(600):
        seen = look()
        if good(seen):
            return seen
        time.sleep(0.1)
    raise AssertionError(f"{what} was not seen: {seen}")


# Create: all nodes, then one by its id, which no double could hold.
wanted = NewBackup(name="Zażółć 中 🙂", remarks="by a generated client", expires_in_days=30)
reply = answered(call("backups.create_backup", deployment, body=wanted, idempotency_key="one"), 204)
whole = int(reply.headers["ld-backup"])
again = answered(call("backups.create_backup", deployment, body=wanted, idempotency_key="one"), 204)
assert (int(again.headers["ld-backup"]), again.headers["idempotent-replayed"]) == (whole, "true")


def backup(number):
    return answered(call("backups.get_backup", deployment, number), 200).parsed


def completed(number):
    return until(
        f"backup {number} completed",
        lambda: backup(number),
        lambda one: one.status == BackupStatus.COMPLETED,
    )


detail = completed(whole)
assert detail.deployment_id == deployment and detail.node_id is None
assert [snapshot.snapshot_id for snapshot in detail.snapshots] == detail.snapshot_ids
assert {snapshot.node_id for snapshot in detail.snapshots} == {
    node["node_id"] for node in demo["nodes"]
}
assert detail.expires_at - detail.created_at == datetime.timedelta(days=30)
reply = call("backups.create_backup", deployment, body=NewBackup(name="one node", node_id=node))
of_node = int(answered(reply, 204).headers["ld-backup"])
assert completed(of_node).node_id == node

# List, page by page.
listed = answered(call("backups.list_backups", deployment), 200).parsed
assert [one.id for one in listed] == [of_node, whole]
page = answered(call("backups.list_backups", deployment, limit=1), 200)
assert [one.id for one in page.parsed] == [of_node] and 'rel="next"' in page.headers["link"]
page = answered(call("backups.list_backups", deployment, limit=1, before=of_node), 200)
assert [one.id for one in page.parsed] == [whole] and "link" not in page.headers

# Change.
change = BackupChange(name="kept", expires_in_days=None)
answered(call("backups.patch_backup", deployment, whole, body=change), 204)
detail = backup(whole)
assert (detail.name, detail.expires_at) == ("kept", None)
assert detail.remarks == "by a generated client"

# A schedule.
problem = answered(call("schedule.get_schedule", deployment), 404, Problem).parsed
assert problem.code == ProblemCode.SCHEDULE_NOT_FOUND
setting = NewSchedule(cron="0 3 29 2 *", timezone="Europe/Warsaw", node_id=node)
answered(call("schedule.put_schedule", deployment, body=setting), 204)
schedule = answered(call("schedule.get_schedule", deployment), 200).parsed
assert (schedule.node_id, schedule.enabled) == (node, True)
assert schedule.next_run_at.tzinfo is not None
answered(call("schedule.delete_schedule", deployment), 204)

# Restore, with a backup of the present state.
reply = call("restores.restore_backup", deployment, whole, body=NewRestore(safety_backup=True))
number = int(answered(reply, 204).headers["ld-restore"])
safety = int(reply.headers["ld-backup"])
problem = answered(call("backups.delete_backup", deployment, whole), 409, Problem).parsed
assert problem.code == ProblemCode.RESTORE_IN_PROGRESS and problem.retryable is False
restore = until(
    "the restore's end",
    lambda: answered(call("restores.get_restore", deployment, number), 200).parsed,
    lambda one: one.status not in (RestoreStatus.PENDING, RestoreStatus.IN_PROGRESS),
)
assert restore.status == RestoreStatus.COMPLETED, restore
assert (restore.backup_id, restore.safety_backup_id) == (whole, safety)
assert {one.node_id for one in restore.nodes} == {node["node_id"] for node in demo["nodes"]}
assert restore.downtime_seconds >= 0

# Once more, and the list of both page by page.
again = int(answered(call("restores.restore_backup", deployment, whole), 204).headers["ld-restore"])
until(
    "the second restore's end",
    lambda: answered(call("restores.get_restore", deployment, again), 200).parsed,
    lambda one: one.status == RestoreStatus.COMPLETED,
)
restores = answered(call("restores.list_restores", deployment), 200).parsed
assert [one.id for one in restores] == [again, number]
page = answered(call("restores.list_restores", deployment, limit=1), 200)
assert [one.id for one in page.parsed] == [again] and 'rel="next"' in page.headers["link"]
page = answered(call("restores.list_restores", deployment, limit=1, before=again), 200)
assert [one.id for one in page.parsed] == [number] and "link" not in page.headers

# Delete, and until it is gone.
for one in (whole, of_node, safety):
    answered(call("backups.delete_backup", deployment, one), 204)
until("an empty list", lambda: call("backups.list_backups", deployment).parsed, lambda all: not all)

# What is refused is typed too.
reader = client(demo["keys"]["read"])
reply = call("backups.create_backup", deployment, body=NewBackup(name="n"), by=reader)
problem = answered(reply, 403, Problem).parsed
assert problem.code == ProblemCode.INSUFFICIENT_PERMISSIONS
bad = NewBackup(name=" ", backup_type=BackupType.PRE_UPGRADE, expires_in_days=0)
problem = answered(call("backups.create_backup", deployment, body=bad), 400, Problem).parsed
assert [issue.path for issue in problem.field_issues] == ["name", "expires_in_days"]
stranger = client(demo["keys"]["other_tenant"])
foreign = answered(call("backups.list_backups", deployment, by=stranger), 404, Problem).parsed
assert foreign.code == ProblemCode.DEPLOYMENT_NOT_FOUND

print(f"the generated client: {len(restore.nodes)} nodes restored, ids up to {max(deployment, node)}")
