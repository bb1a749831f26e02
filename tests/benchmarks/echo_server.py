"""The yardstick: a grpcio aio server that answers every call with its own request. Prints its port, then serves."""

import grpc
import uvloop


async def echo(request: bytes, _context: object) -> bytes:
    return request


class EveryMethod(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, _details: object) -> object:
        return grpc.unary_unary_rpc_method_handler(echo)


async def serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((EveryMethod(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
