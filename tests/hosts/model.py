"""Stands in for the APIs of models, on loopback: plays a script of tool calls where a model would choose them.

It speaks the APIs that hosts use: Anthropic's messages, OpenAI's chat completions and responses, and Gemini's
generateContent. Every request is kept: it is all that a model was told."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DONE = "FINISHED"


class Model:
    """`script` is a generator: it yields (tool, arguments) and is sent what the host says of the call."""

    def __init__(self, script):
        self.told = []
        self.finished = False
        self.failure = None
        self._script = script
        self._calls = []
        self._found = set()
        self._lock = threading.Lock()
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self._send("application/json", json.dumps(MODELS))

            def do_POST(self):
                body = self._body()
                api = next((api for path, api in APIS if re.search(path, self.path)), None)
                if api is None:
                    return self._send("application/json", json.dumps({"input_tokens": 9, "totalTokens": 9}))
                request = json.loads(body)
                try:
                    step = model._next(api, request)
                except Exception as failure:  # Raised again by whoever started the host.
                    step, model.failure = None, failure
                answer = api.answer(request, step)
                if request.get("stream") or "stream" in self.path:
                    events = [f"{name and f'event: {name}' + chr(10)}data: {json.dumps(data)}\n\n" for name, data in api.events(answer)]
                    self._send("text/event-stream", "".join(events) + api.LAST_EVENT)
                else:
                    self._send("application/json", json.dumps(answer))

            def _body(self):
                if self.headers.get("transfer-encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                body = b""
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _send(self, kind, text):
                data = text.encode()
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _next(self, api, request):
        """The call that comes next, as (id, name, arguments, namespace); None when there is none."""
        with self._lock:
            self.told.append(json.dumps(request))
            tools = api.tools(request)
            if not tools:
                return None
            results = api.results(request)
            # A host that asks again for the same step gets the same call.
            if len(results) == len(self._calls):
                try:
                    self._calls.append(self._script.send(results[-1] if results else None))
                except StopIteration:
                    self.finished = True
            if self.finished or self.failure or len(results) >= len(self._calls):
                return None
            tool, arguments = self._calls[len(results)]
            name = next((name for name in tools if is_named(name, tool)), None)
            if name is not None:
                return (f"call_{len(results)}", name, arguments, tools[name])
            # Some hosts give the model a tool only when it has looked for it, and some only through another tool.
            name = f"mcp__bondmcp__{tool}"
            if "tool_call" in tools and tool in self._found:
                return (f"call_{len(results)}", "tool_call", {"name": name, "arguments": arguments}, None)
            search = next((search for search in ["ToolSearch", "tool_search"] if search in tools), None)
            assert search and tool not in self._found, f"there is no tool {tool} among {list(tools)}"
            self._found.add(tool)
            return (f"find_{len(self.told)}", search, {"query": f"select:{name}"}, None)


MODELS = {
    "object": "list",
    "data": [{"id": "scripted", "object": "model"}],
    "models": [{"name": "models/scripted", "slug": "scripted"}],
}


def is_named(name, tool):
    """Hosts put prefixes before the names of tools."""
    return re.search(rf"(^|[^a-z]){tool}$", name) is not None


def of_ours(calls):
    return [text for identity, text in calls if identity.startswith("call_")]


class Messages:
    LAST_EVENT = ""

    @staticmethod
    def tools(request):
        return {tool["name"]: None for tool in request.get("tools", [])}

    @staticmethod
    def results(request):
        blocks = [
            block
            for message in request["messages"]
            if isinstance(message["content"], list)
            for block in message["content"]
            if block.get("type") == "tool_result"
        ]
        return of_ours((block["tool_use_id"], json.dumps(block)) for block in blocks)

    @staticmethod
    def answer(request, step):
        content = {"type": "text", "text": DONE}
        if step:
            content = {"type": "tool_use", "id": step[0], "name": step[1], "input": step[2]}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request.get("model"),
            "content": [content],
            "stop_reason": "tool_use" if step else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 9},
        }

    @staticmethod
    def events(answer):
        [content] = answer["content"]
        if content["type"] == "text":
            empty, delta = {**content, "text": ""}, {"type": "text_delta", "text": content["text"]}
        else:
            empty = {**content, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}
        start = {**answer, "content": [], "stop_reason": None}
        end = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        for event in [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": empty},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
        ]:
            yield event["type"], event


class Chat:
    LAST_EVENT = "data: [DONE]\n\n"

    @staticmethod
    def tools(request):
        return {tool["function"]["name"]: None for tool in request.get("tools") or []}

    @staticmethod
    def results(request):
        said = [message for message in request["messages"] if message["role"] == "tool"]
        return of_ours((message["tool_call_id"], json.dumps(message)) for message in said)

    @staticmethod
    def answer(request, step):
        message = {"role": "assistant", "content": DONE}
        if step:
            function = {"name": step[1], "arguments": json.dumps(step[2])}
            call = {"id": step[0], "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {
            "id": "chat_1",
            "object": "chat.completion",
            "created": 1,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if step else "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }

    @staticmethod
    def events(answer):
        [choice] = answer["choices"]
        delta = dict(choice["message"])
        if "tool_calls" in delta:
            delta["tool_calls"] = [{"index": 0, **call} for call in delta["tool_calls"]]
        chunk = {**answer, "object": "chat.completion.chunk"}
        yield "", {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield "", {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}


class Responses:
    LAST_EVENT = ""

    @staticmethod
    def tools(request):
        tools = {}
        for tool in request.get("tools") or []:
            if tool.get("type") == "namespace":
                tools |= {inner["name"]: tool["name"] for inner in tool["tools"]}
            elif "name" in tool:
                tools[tool["name"]] = None
        return tools

    @staticmethod
    def results(request):
        said = request["input"] if isinstance(request["input"], list) else []
        outputs = [item for item in said if item.get("type") == "function_call_output"]
        return of_ours((item["call_id"], json.dumps(item)) for item in outputs)

    @staticmethod
    def answer(request, step):
        if step:
            item = {"type": "function_call", "id": f"fc_{step[0]}", "call_id": step[0], "name": step[1]}
            item |= {"arguments": json.dumps(step[2]), "status": "completed"}
            item |= {"namespace": step[3]} if step[3] else {}
        else:
            content = [{"type": "output_text", "text": DONE, "annotations": []}]
            item = {"type": "message", "id": "m_1", "role": "assistant", "status": "completed", "content": content}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "scripted",
            "status": "completed",
            "output": [item],
            "usage": {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18},
        }

    @staticmethod
    def events(answer):
        [item] = answer["output"]
        for number, event in enumerate(
            [
                {"type": "response.created", "response": {**answer, "status": "in_progress", "output": []}},
                {"type": "response.output_item.added", "output_index": 0, "item": item},
                {"type": "response.output_item.done", "output_index": 0, "item": item},
                {"type": "response.completed", "response": answer},
            ]
        ):
            yield event["type"], {**event, "sequence_number": number}


class GenerateContent:
    LAST_EVENT = ""

    @staticmethod
    def tools(request):
        declared = [tool.get("functionDeclarations", []) for tool in request.get("tools") or []]
        return {function["name"]: None for functions in declared for function in functions}

    @staticmethod
    def results(request):
        parts = [part for content in request.get("contents", []) for part in content.get("parts", [])]
        return [json.dumps(part["functionResponse"]) for part in parts if "functionResponse" in part]

    @staticmethod
    def answer(request, step):
        part = {"text": DONE}
        if step:
            # Gemini CLI adds this argument to the schema of every tool.
            arguments = {**step[2], "wait_for_previous": True}
            part = {"functionCall": {"id": step[0], "name": step[1], "args": arguments}}
        elif request.get("generationConfig", {}).get("responseJsonSchema"):
            # What Gemini CLI asks its model besides: who speaks next, and which model is to answer.
            part = {"text": json.dumps({"reasoning": "", "next_speaker": "user", "model_choice": "flash"})}
        return {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 9, "totalTokenCount": 18},
        }

    @staticmethod
    def events(answer):
        yield "", answer


APIS = [
    (r"/messages($|\?)", Messages),
    (r"/chat/completions$", Chat),
    (r"/responses$", Responses),
    (r"enerateContent", GenerateContent),
]
