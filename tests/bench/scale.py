#!/usr/bin/env python3
"""Large configurations: how long proxies take to be ready with thousands of clusters, and what memory they hold then.

    ./scale.py --proxy 'envoy=ENVOY -c {config} --disable-hot-restart' --proxy 'weft=WEFT -c {config}' --sources static,ads,delta

Every proxy gets the same clusters: in the bootstrap, or by an aggregated stream in either variant from a control plane that
this script is (needs grpcio and xds-protos). Proxies run alternately; the least time and memory of the repetitions count.
"""
import argparse
import concurrent.futures
import json
import os
import shlex
import sys
import tempfile
import time
import urllib.request

from procs import Proc, free_ports

HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
ADS = {"ads": {}, "resource_api_version": "V3"}
READY_SECONDS_MAX = 120


def address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}


def name(index):
    return f"outbound|80||service-{index}.namespace-{index % 50}.svc.cluster.local"


def assignment(index, endpoints):
    hosts = [f"10.{index // 256 % 256}.{index % 256}.{host + 1}" for host in range(endpoints)]
    endpoint = lambda host: {"endpoint": {"address": address(host, 8080)}}
    return {"cluster_name": name(index), "endpoints": [{"lb_endpoints": [endpoint(host) for host in hosts]}]}


def cluster(index, endpoints, dynamic):
    message = {"name": name(index), "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST"}
    if dynamic:
        return {**message, "type": "EDS", "eds_cluster_config": {"eds_config": ADS}}
    return {**message, "type": "STATIC", "load_assignment": assignment(index, endpoints)}


def listener(port):
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": name(0)}}]
    table = {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    filters = [{"name": "router", "typed_config": {"@type": router}}]
    config = {"@type": manager, "stat_prefix": "in", "route_config": table, "http_filters": filters}
    chain = {"filters": [{"name": "http", "typed_config": config}]}
    return {"name": "in", "address": address("127.0.0.1", port), "filter_chains": [chain]}


def bootstrap(source, count, endpoints, ports):
    admin, listening, control = ports
    document = {"node": {"id": "scale", "cluster": "scale"}, "admin": {"address": address("127.0.0.1", admin)}}
    if source == "static":
        clusters = [cluster(index, endpoints, False) for index in range(count)]
        document["static_resources"] = {"clusters": clusters, "listeners": [listener(listening)]}
        return document
    endpoint = {"endpoint": {"address": address("127.0.0.1", control)}}
    document["static_resources"] = {"clusters": [{
        "name": "xds", "type": "STATIC", "typed_extension_protocol_options": HTTP2,
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }]}
    document["dynamic_resources"] = {
        "ads_config": {
            "api_type": "DELTA_GRPC" if source == "delta" else "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        },
        "cds_config": ADS, "lds_config": ADS,
    }
    return document


def control_plane(count, endpoints, port, listening):
    """Answers each kind once a stream, with everything that was asked for. Encoded once, for all proxies."""
    import grpc
    from envoy.config.cluster.v3 import cluster_pb2
    from envoy.config.endpoint.v3 import endpoint_pb2
    from envoy.config.listener.v3 import listener_pb2
    from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401, for the Any inside
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
    from envoy.service.discovery.v3 import discovery_pb2
    from google.protobuf import any_pb2, json_format

    def packed(message, value):
        packed = any_pb2.Any()
        packed.Pack(json_format.ParseDict(value, message()))
        return packed

    kinds = {
        "Cluster": {name(i): packed(cluster_pb2.Cluster, cluster(i, endpoints, True)) for i in range(count)},
        "ClusterLoadAssignment": {
            name(i): packed(endpoint_pb2.ClusterLoadAssignment, assignment(i, endpoints)) for i in range(count)
        },
        "Listener": {"in": packed(listener_pb2.Listener, listener(listening))},
    }

    def sotw(requests, _):
        answered = set()
        for request in requests:
            kind = request.type_url.rsplit(".", 1)[1]
            if kind in answered or kind not in kinds:
                continue
            answered.add(kind)
            wanted = request.resource_names or kinds[kind]
            resources = [kinds[kind][wanted_name] for wanted_name in wanted]
            yield discovery_pb2.DiscoveryResponse(
                version_info="1", nonce=kind, type_url=request.type_url, resources=resources)

    def delta(requests, _):
        answered = set()
        for request in requests:
            kind = request.type_url.rsplit(".", 1)[1]
            if kind not in kinds or (kind in answered and not request.resource_names_subscribe):
                continue
            answered.add(kind)
            wanted = [wanted_name for wanted_name in request.resource_names_subscribe if wanted_name != "*"]
            resources = [
                discovery_pb2.Resource(name=wanted_name, version="1", resource=kinds[kind][wanted_name])
                for wanted_name in wanted or kinds[kind]
            ]
            yield discovery_pb2.DeltaDiscoveryResponse(nonce=kind, type_url=request.type_url, resources=resources)

    def method(handler, request):
        return grpc.stream_stream_rpc_method_handler(
            handler, request_deserializer=request.FromString, response_serializer=lambda answer: answer.SerializeToString())

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "envoy.service.discovery.v3.AggregatedDiscoveryService", {
            "StreamAggregatedResources": method(sotw, discovery_pb2.DiscoveryRequest),
            "DeltaAggregatedResources": method(delta, discovery_pb2.DeltaDiscoveryRequest),
        }),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def measure(label, command, config, admin, log):
    """Seconds from start to ready, CPU seconds until then, megabytes then."""
    proc = Proc(label, [part.format(config=config) for part in shlex.split(command)], log)
    try:
        while time.monotonic() - proc.t0 < READY_SECONDS_MAX:
            if proc.p.poll() is not None:
                sys.exit(f"{label} ended, see {log}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.005)
        else:
            sys.exit(f"{label} is not ready in time, see {log}")
        ready, cpu = time.monotonic() - proc.t0, proc.cpu()
        time.sleep(0.5)
        return ready, cpu, proc.rss_kb() / 1024
    finally:
        proc.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", action="append", required=True, metavar="NAME=COMMAND", help="the first is compared with")
    parser.add_argument("--sources", default="static")
    parser.add_argument("--clusters", type=int, default=5000)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--reps", type=int, default=3)
    args = parser.parse_args()
    proxies = dict(proxy.split("=", 1) for proxy in args.proxy)
    work = tempfile.mkdtemp(prefix="scale-")
    print("| source | proxy | ready s | CPU s | MB | ready | CPU | memory |\n|---|---|---|---|---|---|---|---|")
    for source in args.sources.split(","):
        ports = free_ports(3)
        server = None if source == "static" else control_plane(args.clusters, args.endpoints, ports[2], ports[1])
        config = os.path.join(work, f"{source}.json")
        with open(config, "w") as file:
            json.dump(bootstrap(source, args.clusters, args.endpoints, ports), file)
        best = {}
        for _ in range(args.reps):
            for label, command in proxies.items():
                figures = measure(label, command, config, ports[0], os.path.join(work, f"{label}-{source}.log"))
                best[label] = tuple(map(min, best.get(label, figures), figures))
        base = next(iter(best.values()))
        for label, figures in best.items():
            ratios = " | ".join(f"{figure / against:.2f}" for figure, against in zip(figures, base))
            print(f"| {source} | {label} | {figures[0]:.2f} | {figures[1]:.2f} | {figures[2]:.0f} | {ratios} |", flush=True)
        if server:
            server.stop(0)


if __name__ == "__main__":
    main()
