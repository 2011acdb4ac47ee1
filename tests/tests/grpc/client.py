"""A stock grpcio client that knows nothing of Weft: it learns the services by reflection alone.

Usage: client.py TARGET IMAGE [CA CERT KEY]
Makes a network and a service, watches its tasks come up, resumes the watch where it broke off, retries a
request by its id, and removes both again.
"""

import sys
import uuid

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

REPLICAS = 2
# Seconds in which everything here has to happen.
PATIENCE = 60


def main() -> None:
    target, image, *files = sys.argv[1:]
    if files:
        ca, cert, key = (open(name, "rb").read() for name in files)
        # A manager proves its role and not an address, which may change: the certificate's name says so.
        name = [("grpc.ssl_target_name_override", "weft-manager")]
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), name)
    else:
        channel = grpc.insecure_channel(target)
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    print("services:", *sorted(names))
    for name in ("Cluster", "Node", "Network", "Service", "Task", "Watch"):
        assert f"weft.v1.{name}Service" in names, f"{name} is not in {names}"
    assert "grpc.health.v1.Health" in names, names
    pool = descriptor_pool.DescriptorPool(database)

    def method(service: str, rpc: str):
        descriptor = pool.FindServiceByName(service).methods_by_name[rpc]
        request = message_factory.GetMessageClass(descriptor.input_type)
        answer = message_factory.GetMessageClass(descriptor.output_type)
        kind = channel.unary_stream if descriptor.server_streaming else channel.unary_unary
        call = kind(
            f"/{service}/{rpc}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return lambda timeout=PATIENCE, **fields: call(request(**fields), timeout=timeout)

    health = method("grpc.health.v1.Health", "Check")()
    assert health.status == 1, f"not serving: {health}"

    create = method("weft.v1.NetworkService", "Create")
    first = uuid.uuid4().hex
    network = create(spec={"name": "py", "driver": "overlay"}, request_id=first).network
    again = create(spec={"name": "py", "driver": "overlay"}, request_id=first).network
    assert again.id == network.id, "a retry makes nothing new"
    try:
        create(spec={"name": "py", "driver": "overlay"}, request_id=uuid.uuid4().hex)
        raise AssertionError("the same name twice")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS, error

    # Everything as it is now, and the revision to go on from.
    watch = method("weft.v1.WatchService", "Watch")
    bookmark = pool.FindEnumTypeByName("weft.v1.WatchKind").values_by_name["WATCH_KIND_BOOKMARK"].number
    networks, start = set(), 0
    for event in watch(objects=["network", "task"]):
        if event.kind == bookmark:
            start = event.revision
            break
        networks.add(event.network.id)
    assert network.id in networks and start > 0, (networks, start)

    service = method("weft.v1.ServiceService", "Create")(
        spec={
            "name": "py",
            "container": {"image": image, "args": ["sleep", "1000000"], "stop_grace_period": {"seconds": 1}},
            "mode": {"replicated": {"replicas": REPLICAS}},
            "networks": [{"network": "py"}],
        },
        request_id=uuid.uuid4().hex,
    ).service
    states = pool.FindEnumTypeByName("weft.v1.TaskState").values_by_name
    running = states["TASK_STATE_RUNNING"].number
    up, last, seen = set(), 0, []
    for event in watch(from_revision=start, objects=["task"], service=service.id):
        assert event.revision >= last, "revisions do not go back"
        last = event.revision
        seen.append((event.revision, event.task.id, event.task.status.state))
        if event.task.status.state == running:
            up.add(event.task.slot)
        if len(up) == REPLICAS:
            break
    print("up:", sorted(up), "at revision", last)

    # From the same revision the same is told again.
    told = []
    for event in watch(from_revision=start, objects=["task"], service=service.id):
        told.append((event.revision, event.task.id, event.task.status.state))
        if len(told) == len(seen):
            break
    assert told == seen, f"{told} is not {seen}"

    listed = method("weft.v1.TaskService", "List")().tasks
    assert {task.slot for task in listed if task.service_id == service.id} == up, listed
    method("weft.v1.ServiceService", "Remove")(service=service.id, request_id=uuid.uuid4().hex)
    gone = method("weft.v1.ServiceService", "Get")
    try:
        gone(service=service.id)
        raise AssertionError("a removed service is found")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    print("done")


main()
