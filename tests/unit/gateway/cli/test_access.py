"""What a tool's options say of tokens and TLS, and what is said of those that cannot be."""

import pathlib
import ssl

import click
import pytest
import trustme
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from tensorgate.gateway.cli.access import Access, read_tls, read_token, system_authorities
from tensorgate.gateway.cli.access_options import access_options
from tensorgate.gateway.cli.connection import split_address
from tensorgate.protos.status_codes import Code, ServingError

CA, OTHER_CA = trustme.CA(), trustme.CA()
CLIENT, OTHER_CLIENT = CA.issue_cert("client"), OTHER_CA.issue_cert("client")
PASSPHRASE = b"open sesame"


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """With PEM files in it; nothing comes from the environment."""
    for name in ("TENSORGATE_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    # The command sets it otherwise, for good.
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, leaf in (("client", CLIENT), ("other", OTHER_CLIENT)):
        leaf.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        leaf.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    key = serialization.load_pem_private_key(CLIENT.private_key_pem.bytes(), None)
    (tmp_path / "encrypted.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSPHRASE),
        )
    )
    (tmp_path / "empty").touch()
    return tmp_path


@click.command()
@access_options
def said(*, access: Access) -> None:
    """Stands in for a command that talks to a server."""
    tls = access.tls
    shown = tls and (tls.authorities is not None, tls.client_cert is not None, tls.server_name)
    click.echo(f"{access.token} {shown}")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], " None"),
        (["--tls"], " (False, False, '')"),
        (["--ca_cert=ca.pem"], " (True, False, '')"),
        (["--tls_server_name=a.example"], " (False, False, 'a.example')"),
        (["--client_cert=client.pem", "--client_key=client.key"], " (False, True, '')"),
        (["--tls", "--ca_cert=ca.pem", "--token_file=token"], "secret (True, False, '')"),
    ],
)
def test_each_option_of_tls_implies_it(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, options: list[str], shown: str
) -> None:
    (folder / "token").write_text("secret\n", encoding="ascii")
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(said, options)
    assert (result.exit_code, result.output) == (0, f"{shown}\n")


@pytest.mark.parametrize("option", ["--client_cert=client.pem", "--client_key=client.key"])
def test_a_certificate_and_its_key_go_together(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(said, [option])
    assert result.exit_code == 2
    assert "--client_cert and --client_key go together" in result.output


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("client.key",), "client.key has no certificate that can be used"),
        (("empty",), "empty has no certificate that can be used: it is empty"),
        (("", "client.pem", "other.key"), "client.pem and other.key are no certificate and its key, in PEM"),
        (("", "client.key", "client.pem"), "client.key and client.pem are no certificate and its key, in PEM"),
        (("", "client.pem", "encrypted.key"), "encrypted.key is encrypted"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_told_before_anything_connects(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ServingError) as raised:
        read_tls(*files)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert message in raised.value.message


def test_a_certificate_may_have_words_around_it(folder: pathlib.Path) -> None:
    file = folder / "ca.pem"
    file.write_bytes("# Zertifikat für Tests\n".encode() + file.read_bytes())
    assert len(read_tls(str(file)).context.get_ca_certs()) == 1


def test_certificates_are_checked_as_strictly_on_every_python(folder: pathlib.Path) -> None:
    context = read_tls(str(folder / "ca.pem")).context
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_systems_authorities_are_those_of_openssl(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    assert system_authorities() == CA.cert_pem.bytes()
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "none"))
    hashed = folder / "hashed"
    hashed.mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(hashed))
    assert system_authorities() is None
    for number, ca in enumerate((CA, OTHER_CA)):
        (hashed / f"0123456{number}.0").write_bytes(ca.cert_pem.bytes())
    (hashed / "README").write_text("no certificate", encoding="ascii")
    assert system_authorities() == CA.cert_pem.bytes() + b"\n" + OTHER_CA.cert_pem.bytes()


def test_a_token_file_holds_one_token(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORGATE_TOKEN", " of-the-environment\n")
    assert read_token(None) == "of-the-environment"
    (folder / "token").write_text("of-the-file\n", encoding="ascii")
    assert read_token(str(folder / "token")) == "of-the-file"
    with pytest.raises(ServingError, match="is to hold one token and nothing else"):
        read_token(str(folder / "empty"))


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("host:1", ("host", 1)),
        ("host", ("host", 8500)),
        (":1", ("localhost", 1)),
        ("[::1]:1", ("::1", 1)),
        ("[::1]", ("::1", 8500)),
    ],
)
def test_addresses_are_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address, 8500) == parts


@pytest.mark.parametrize(
    ("address", "message"),
    [("host:https", "no port number"), ("host:65536", "no port number"), ("https://host:8501", "HOST:PORT alone")],
)
def test_what_is_no_address_is_refused(address: str, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        split_address(address, 8500)
