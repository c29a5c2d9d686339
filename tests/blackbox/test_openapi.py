"""docs/openapi.yaml and the router have the same routes, methods, statuses and forms of answers."""

import json
import pathlib
import re

import pytest

import harness

yaml = pytest.importorskip("yaml", reason="needs python3-yaml")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
METHODS = {"get", "head", "post", "put", "delete", "patch"}


def table():
    """Path -> (methods, changes something) of the router's own table."""
    text = (ROOT / "lib/router/admin/admin.c").read_text().split("} paths[] = {")[1].split("};")[0]
    rows = re.findall(r'\{"([^"]+)",\s*"([^"]+)",\s*(true|false),', text)
    assert len(rows) == text.count("\n\t{")
    return {path: (set(allow.replace(" ", "").lower().split(",")), acts == "true") for path, allow, acts in rows}


def described():
    """The same of the description: /workers/{id} and what is below it are one row of the table."""
    found = {}
    for path, item in PAGE["paths"].items():
        row = re.sub(r"/\{id\}.*", "/*", path)
        methods = METHODS & item.keys()
        before, acts = found.get(row, (set(), False))
        found[row] = (before | methods, acts or any(item[m].get("x-port") == "admin" for m in methods))
    return found


def test_the_description_has_the_routes_of_the_table_and_no_others():
    routes = described()
    # Not in the table: it is a request like any other, of the router's own making.
    assert routes.pop("/health_generate") == ({"get"}, False)
    assert routes == table()


def resolved(schema):
    while "$ref" in schema:
        at = PAGE
        for part in schema["$ref"].lstrip("#/").split("/"):
            at = at[part]
        schema = at
    return schema


def fits(value, schema, where="answer"):
    """The little of JSON Schema that the page uses."""
    schema = resolved(schema)
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None), "number": (int, float)}
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(isinstance(value, kinds[t]) and not (t == "integer" and isinstance(value, bool)) for t in types), (where, value, types)
    assert "const" not in schema or value == schema["const"], where
    assert "enum" not in schema or value in schema["enum"], (where, value)
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), (where, schema["required"], sorted(value))
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                fits(value[name], inner, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            fits(item, schema["items"], f"{where}[{i}]")


def check(path, method, answer):
    status, headers, body = answer
    responses = PAGE["paths"][path]["get" if method == "head" else method]["responses"]
    assert str(status) in responses, f"{method} {path}: found status {status}, described are {sorted(responses)}"
    response = resolved(responses[str(status)])
    if method == "head":
        assert body == b""
        return
    kind = headers["Content-Type"].split(";")[0]
    assert kind in response["content"], (path, method, status, kind)
    if kind == "application/json":
        fits(json.loads(body), response["content"][kind]["schema"], f"{method} {path} {status}")


def operations():
    return [(path, method) for path, item in PAGE["paths"].items() for method in sorted(METHODS & item.keys())]


@pytest.fixture(scope="module")
def fleets():
    """A plain pool, prefill/decode pools, a router without workers."""
    fleet = harness.Fleet()
    try:
        plain, prefill, decode = fleet.worker(), fleet.worker("--role", "prefill"), fleet.worker("--role", "decode")
        yield [
            (fleet("serve", "--worker-urls", f"w1={plain.url}", "--worker-startup-timeout-secs", "0.5"), "w1"),
            (fleet("serve", "--pd-disaggregation", "--prefill", f"p1={prefill.url}", "--decode", f"d1={decode.url}", "--worker-startup-timeout-secs", "0.5"), "d1"),
            (fleet("serve", "--worker-startup-timeout-secs", "0.5"), "none"),
        ]
    finally:
        fleet.stop()


@pytest.mark.parametrize("path, method", [pytest.param(p, m, id=f"{m} {p}") for p, m in operations()])
def test_answers_are_as_described(fleets, path, method):
    admin_only = PAGE["paths"][path][method].get("x-port") == "admin"
    dead = f"http://127.0.0.1:{harness.free_port()}"
    for router, name in fleets:
        target = path.replace("{id}", name)
        queries = [""]
        if path in ("/add_worker", "/remove_worker"):
            queries = [f"?url={dead}", ""]
        elif path == "/finish_session":
            queries = ["?session_id=s1", ""]
        for query in queries:
            body = {"url": dead, "worker_type": "decode" if name == "d1" else "regular"} if (path, method) == ("/workers", "post") else None
            if method != "delete" or name == "none":  # the fleet stays as it is
                check(path, method, router.admin(method.upper(), target + query, body))
            answer = router.request(method.upper(), target + query, body)
            check(path, method, answer)
            assert not admin_only or answer[0] == 403
    if (path, method) == ("/workers/{id}/drain", "post"):
        for router, name in fleets:
            router.admin("POST", f"/workers/{name}/undrain")


def test_what_is_not_described_is_refused_or_forwarded(fleets):
    router = fleets[0][0]
    for path, (methods, _) in table().items():
        wrong = next(m for m in ("put", "delete", "post") if m not in methods)
        status, headers, _ = router.admin(wrong.upper(), path.replace("*", "w1"))
        assert status == 405 and {m.strip().lower() for m in headers["Allow"].split(",")} == methods, path
