"""The URL grammar: what matches, what is decoded, what is refused and how."""

import pytest

from tensorgate.gateway.rest.url_grammar import (
    InferenceMethod,
    InferenceRoute,
    MetadataRoute,
    ModelAddress,
    Route,
    SilentRefusal,
    StatusRoute,
    has_broken_escape,
    is_api_path,
    parse_route,
)
from tensorgate.protos.status_codes import Code, ServingError

PREDICT = InferenceMethod.PREDICT
# Every character that RFC 3986 reserves, and a percent sign, encoded.
RESERVED = "%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D"
RESERVED_DECODED = "!#$%&'()*+,/:;=?@[]"


@pytest.mark.parametrize(
    ("path", "is_api"),
    [
        (b"/v1/models", True),
        (b"/V1/anything", True),
        (b"/v1/", True),
        (b"/v1", False),
        (b"//v1/models", False),
        (b"/v2/models", False),
        (b"/statuspage", False),
        (b"/index", False),
    ],
)
def test_only_paths_below_v1_belong_to_the_api(path: bytes, is_api: bool) -> None:
    assert is_api_path(path) is is_api


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models/m:predict", InferenceRoute(ModelAddress("m"), PREDICT)),
        ("/v1/models/m:classify", InferenceRoute(ModelAddress("m"), InferenceMethod.CLASSIFY)),
        ("/v1/models/m:regress", InferenceRoute(ModelAddress("m"), InferenceMethod.REGRESS)),
        ("/V1/Models/m:predict", InferenceRoute(ModelAddress("m"), PREDICT)),
        ("/v1/models/m/versions/99:predict", InferenceRoute(ModelAddress("m", 99), PREDICT)),
        ("/v1/models/m/Versions/00123:predict", InferenceRoute(ModelAddress("m", 123), PREDICT)),
        ("/v1/models/m/versions/0:predict", InferenceRoute(ModelAddress("m", 0), PREDICT)),
        (
            "/v1/models/m/versions/9223372036854775807:predict",
            InferenceRoute(ModelAddress("m", 2**63 - 1), PREDICT),
        ),
        (
            "/v1/models/m/versions/" + "0" * 5000 + "7:predict",
            InferenceRoute(ModelAddress("m", 7), PREDICT),
        ),
        ("/v1/models/m/labels/canary:predict", InferenceRoute(ModelAddress("m", None, "canary"), PREDICT)),
        (
            f"/v1/models/{RESERVED}/labels/{RESERVED}:predict",
            InferenceRoute(ModelAddress(RESERVED_DECODED, None, RESERVED_DECODED), PREDICT),
        ),
        ("/v1/models/a+b%20c:predict", InferenceRoute(ModelAddress("a+b c"), PREDICT)),
        ("/v1/models/%FF:predict", InferenceRoute(ModelAddress("\udcff"), PREDICT)),
        ("/v1/models/a%00b:predict", InferenceRoute(ModelAddress("a\0b"), PREDICT)),
    ],
)
def test_post_urls_name_a_model_and_a_method(path: str, route: Route) -> None:
    assert parse_route("POST", path.encode()) == route


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models/m", StatusRoute(ModelAddress("m"))),
        ("/V1/MODELS/m", StatusRoute(ModelAddress("m"))),
        ("/v1/models/m/versions/00042", StatusRoute(ModelAddress("m", 42))),
        ("/v1/models/m/labels/canary", StatusRoute(ModelAddress("m", None, "canary"))),
        (f"/v1/models/{RESERVED}", StatusRoute(ModelAddress(RESERVED_DECODED))),
        ("/v1/models/m/metadata", MetadataRoute(ModelAddress("m"))),
        ("/v1/models/m/versions/3/metadata", MetadataRoute(ModelAddress("m", 3))),
        ("/v1/models/m/labels/l/metadata", MetadataRoute(ModelAddress("m", None, "l"))),
        ("/v1/models/metadata", StatusRoute(ModelAddress("metadata"))),
        ("/v1/models/metadata/metadata", MetadataRoute(ModelAddress("metadata"))),
        ("/v1/models/m/METADATA", StatusRoute(ModelAddress("m"))),
        ("/v1/models/m;x=y", StatusRoute(ModelAddress("m;x=y"))),
    ],
)
def test_get_urls_ask_for_status_or_metadata(path: str, route: Route) -> None:
    assert parse_route("GET", path.encode()) == route


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1/"),
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/debug/model_name"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/m:"),
        ("GET", "/v1/models/m/versions/"),
        ("GET", "/v1/models/m/versions/-1"),
        ("GET", "/v1/models/m/versions/1/"),
        ("GET", "/v1/models/m/labels/l/versions/1"),
        ("GET", "/v1/models/m/metadata/"),
        ("GET", "/v1/models/m:predict"),
        ("GET", "/v1/models/m/../other"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:"),
        ("POST", "/v1/models/m:Predict"),
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", "/v1/models/m::predict"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m/predict"),
        ("POST", "/v1/models/m/metadata"),
        ("POST", "/v1/models/m:multiinference"),
        ("POST", "/v1/models/m/version/50:predict"),
        ("POST", "/v1/models/m/versions/HELLO:regress"),
        ("POST", "/v1/models/m/versions/some_label:regress"),
        ("POST", "/v1/models/m/label/x:regress"),
        ("POST", "/v1/models/m/versions/50/labels/x:regress"),
        ("PUT", "/v1/models/m:predict"),
        ("DELETE", "/v1/models/m:predict"),
        ("HEAD", "/v1/models/m"),
        ("PATCH", "/v1/models/m"),
    ],
)
def test_anything_else_is_a_malformed_request(verb: str, path: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_route(verb, path.encode())
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, f"Malformed request: {verb} {path}")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/versions/3", "/v1/models/labels/l/metadata"])
def test_a_get_without_a_name_says_so(path: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_route("GET", path.encode())
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "Missing model name in request.")


@pytest.mark.parametrize("digits", ["9223372036854775808", "18446744073709551615", "9" * 60, "1" + "0" * 5000])
@pytest.mark.parametrize(("verb", "suffix"), [("GET", ""), ("GET", "/metadata"), ("POST", ":predict")])
def test_a_version_beyond_int64_is_refused_without_a_body(digits: str, verb: str, suffix: str) -> None:
    route = parse_route(verb, f"/v1/models/m/versions/{digits}{suffix}".encode())
    text = f"Failed to convert version: {digits} to numeric."
    assert route == SilentRefusal(ServingError(Code.INVALID_ARGUMENT, text))


def test_a_query_does_not_matter_but_is_quoted_when_the_path_is_malformed() -> None:
    assert parse_route("GET", b"/v1/models/m", b"x=/y") == StatusRoute(ModelAddress("m"))
    with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT: Malformed request: GET /v1/foo\?x=y$"):
        parse_route("GET", b"/v1/foo", b"x=y")


@pytest.mark.parametrize(
    ("path", "is_broken"), [(b"/v1/%41", False), (b"/v1/%zz", True), (b"/v1/%4", True), (b"/v1/a%", True)]
)
def test_a_percent_sign_needs_two_hexadecimal_digits(path: bytes, is_broken: bool) -> None:
    assert has_broken_escape(path) is is_broken
