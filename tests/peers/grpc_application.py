"""An application that speaks gRPC with grpcio, as a server or as a client by its own xDS implementation.

serve ADDRESS:PORT    answers every unary call with its own address
call TARGET           calls TARGET all the time, and prints what came of it, as a line of JSON, for each line of standard input
"""

import collections
import concurrent.futures
import json
import sys
import threading
import time

import grpc

METHOD = "/weft.test.Echo/Call"
CALL_SECONDS_MAX = 10
# A few hundred calls a second.
PAUSE_SECONDS = 0.002


def serve(address):
    def answer(request, context):
        return address.encode()

    handler = grpc.method_handlers_generic_handler("weft.test.Echo", {"Call": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=8), handlers=(handler,))
    if server.add_insecure_port(address) == 0:
        sys.exit(f"cannot listen on {address}")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


class Caller:
    def __init__(self, target):
        self.channel = grpc.insecure_channel(target)
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        self.by_server = collections.Counter()
        self.failures = collections.Counter()

    def run(self):
        call = self.channel.unary_unary(METHOD)
        while True:
            try:
                answer = call(b"", timeout=CALL_SECONDS_MAX, wait_for_ready=False).decode()
                with self.lock:
                    self.by_server[answer] += 1
            except grpc.RpcError as error:
                with self.lock:
                    self.failures[f"{error.code().name}: {error.details()}"] += 1
            time.sleep(PAUSE_SECONDS)

    def report(self):
        with self.lock:
            report = {"by_server": dict(self.by_server), "failures": dict(self.failures)}
            self.reset()
        return report


def call(target):
    caller = Caller(target)
    threading.Thread(target=caller.run, daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps(caller.report()), flush=True)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
