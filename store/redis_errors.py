"""The client's errors in our words: what was wrong with the server at an address, and what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from redis import exceptions

from .errors import (
    AccessDeniedError,
    ClusterError,
    LoginRefusedError,
    OtoscopeError,
    ReadOnlyStoreError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    TlsError,
)

LOGIN = (
    "put the user into the URL (redis://user@host:6379/0) and the password into $OTOSCOPE_PASSWORD, "
    "or a file that $OTOSCOPE_PASSWORD_FILE names"
)
START = "start it, or start one of your own with `otoscope up`"

# X509_V_ERR_… of OpenSSL, which the ssl module does not name
NOT_YET_VALID, EXPIRED = 9, 10
OTHER_NAMES = (62, 64)


def in_our_words(error: BaseException, where: str) -> OtoscopeError:
    """Return the error of ours that says what an error of the client means.

    `where` is the address without its password.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause, where)
    if isinstance(error, exceptions.ResponseError | exceptions.BusyLoadingError):
        return _of_an_answer(error, where)
    if isinstance(error, exceptions.AuthenticationError):
        return _of_a_login(error, where)
    if isinstance(error, exceptions.RedisClusterException):
        return _of_no_cluster(error, where)
    if isinstance(error, exceptions.InvalidResponse):
        return StoreError(
            f"what answers at {where} does not speak Redis' protocol; is the port another program's "
            "(the page's is 8050)?"
        )
    return _of_a_connection(error, chain, where)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _of_tls(error: ssl.SSLError, where: str) -> OtoscopeError:
    said = _first_line(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == EXPIRED:
            what = "has expired; renew it on the server (or set this machine's clock right)"
        elif error.verify_code == NOT_YET_VALID:
            what = "is not valid yet; set the clocks of both machines right"
        elif error.verify_code in OTHER_NAMES:
            what = (
                f"is for another name ({error.verify_message}); write the name that it was made "
                "for, or have one made for this name"
            )
        else:
            what = (
                f"is signed by an authority that this machine does not know "
                f"({error.verify_message}); name its CA: rediss://…?ssl_ca_certs=/path/to/ca.pem"
            )
        return TlsError(f"the certificate of the Redis server at {where} {what}")
    text = said.upper()
    if "PEM" in text or "X509" in text:
        return TlsError(
            f"a file that the address {where} names holds no certificate or no key, or not one that "
            f"fits ({said}); ssl_ca_certs, ssl_certfile and ssl_keyfile are PEM files"
        )
    if "ALERT" in text or "EOF" in text:
        return TlsError(
            f"the Redis server at {where} ended the TLS handshake ({said}); where it asks for a "
            "certificate of ours: rediss://…?ssl_certfile=/path/client.crt&ssl_keyfile=/path/client.key"
        )
    return TlsError(
        f"the Redis server at {where} does not speak TLS there ({said}); "
        "write redis:// for a port without TLS, or name its TLS port"
    )


def _of_a_login(error: BaseException, where: str) -> OtoscopeError:
    said = _first_line(error)
    if "without any password configured" in said:
        return LoginRefusedError(
            f"the Redis server at {where} has no password, and got one; take it out of the URL, "
            "or unset OTOSCOPE_PASSWORD and OTOSCOPE_PASSWORD_FILE"
        )
    if "required" in said or "must be called" in said:
        return LoginRefusedError(
            f"the Redis server at {where} asks for a password and got none; {LOGIN}"
        )
    return LoginRefusedError(
        f"the Redis server at {where} refuses the user or the password; {LOGIN}"
    )


def _of_an_answer(error: exceptions.RedisError, where: str) -> OtoscopeError:
    """Return the error that an answer of the server means."""
    said = _first_line(error)
    server = f"the Redis server at {where}"
    if isinstance(error, exceptions.OutOfMemoryError):
        return StoreFullError(
            f"{server} refuses writes: its memory is full; raise maxmemory, or delete old runs "
            "(`otoscope prune --older-than 30d`, or on the page)"
        )
    if isinstance(error, exceptions.NoPermissionError):
        return AccessDeniedError(
            f"the Redis user at {where} lacks a permission ({said}); "
            "docs/operations.md lists what callback, daemon and page need"
        )
    if isinstance(error, exceptions.AuthenticationWrongNumberOfArgsError):
        return LoginRefusedError(f"{server} refuses the user or the password ({said}); {LOGIN}")
    if "without any password configured" in said:
        return _of_a_login(error, where)
    if isinstance(error, exceptions.ReadOnlyError):
        return ReadOnlyStoreError(
            f"{server} is a replica and takes no writes; name the primary. After a failover the "
            "address has to lead to the new one (docs/operations.md, Sentinel)"
        )
    if isinstance(error, exceptions.BusyLoadingError):
        return StoreUnavailableError(
            f"{server} is reading its data in and answers once it has; wait, it takes about a "
            "second for each GB"
        )
    if isinstance(error, exceptions.MasterDownError):
        return StoreUnavailableError(f"{server} is a replica that has lost its primary ({said})")
    return _of_a_cluster(error, said, where) or _of_other_words(said, where)


def _of_a_cluster(error: BaseException, said: str, where: str) -> OtoscopeError | None:
    moved = (exceptions.MovedError, exceptions.AskError, exceptions.TryAgainError)
    if isinstance(error, moved) and "+cluster" in where.partition("://")[0]:
        return ClusterError(
            f"the Redis Cluster at {where} is moving slots between its nodes ({said}); what it "
            "refuses meanwhile is sent again"
        )
    if isinstance(error, moved):
        return ClusterError(
            f"the Redis server at {where} is one node of a cluster and sends us to another one; "
            "write redis+cluster://host:port for a cluster of several nodes"
        )
    if isinstance(error, exceptions.ClusterDownError):
        return ClusterError(f"the Redis Cluster at {where} is not whole ({said}); mend it first")
    if isinstance(error, exceptions.ClusterCrossSlotError):
        return ClusterError(f"the Redis Cluster at {where} refused keys of two slots ({said})")
    if "SELECT is not allowed in cluster mode" in said:
        return ClusterError(
            f"the Redis server at {where} is a cluster, which has database 0 alone; "
            "end the URL in /0"
        )
    return None


def _of_no_cluster(error: BaseException, where: str) -> OtoscopeError:
    """Return the error of a cluster that could not be connected to: that of the last node tried."""
    if "Cluster mode is not enabled" in str(error):
        return ClusterError(f"the Redis server at {where} is no cluster; write redis:// for it")
    if isinstance(error.__cause__, exceptions.RedisError | OSError):
        return in_our_words(error.__cause__, where)
    return ClusterError(f"the Redis Cluster at {where} cannot be used ({_first_line(error)})")


def _of_other_words(said: str, where: str) -> OtoscopeError:
    server = f"the Redis server at {where}"
    if "DB index is out of range" in said:
        return StoreError(
            f"{server} has no database of this number; write /0 (it has 16 as a rule)"
        )
    if said.startswith("MISCONF"):
        return StoreUnavailableError(
            f"{server} refuses writes, for it cannot write to its own disk; free some space there"
        )
    if said.startswith("NOREPLICAS"):
        return StoreUnavailableError(f"{server} refuses writes until replicas are there ({said})")
    if said.startswith("DENIED"):
        return LoginRefusedError(
            f"{server} runs in protected mode: it takes connections of its own machine alone until "
            "it has a password (requirepass, or an ACL user)"
        )
    if said.lower().startswith(("unknown command", "err unknown command")):
        return StoreError(
            f"{server} lacks a command ({said.partition(', with args')[0]}); it was renamed away, "
            "or the server is older than 6.2"
        )
    return StoreError(f"{server} answered: {said}")


def _of_a_connection(error: BaseException, chain: list[BaseException], where: str) -> OtoscopeError:
    """Return the error that a connection that failed, or broke, means."""
    said = _first_line(error)
    advice, why = START, said
    for cause in chain:
        if isinstance(cause, socket.gaierror):
            why = "its name cannot be resolved"
            advice = "is the host spelt right, and does this machine's DNS (or VPN) know it?"
        elif isinstance(cause, ConnectionRefusedError):
            why = "connection refused: nothing listens there"
        elif isinstance(cause, FileNotFoundError) and where.startswith("unix:"):
            why = "there is no such socket"
        elif isinstance(cause, PermissionError):
            why = "permission denied"
            advice = "this user may not open the socket; see unixsocketperm, or use its group"
        else:
            continue
        break
    else:
        if any("handshake operation timed out" in str(cause) for cause in chain):
            return TlsError(
                f"the Redis server at {where} does not speak TLS there (it never answered our "
                "handshake); write redis:// for a port without TLS, or name its TLS port"
            )
        if isinstance(error, exceptions.TimeoutError | TimeoutError):
            advice = "is it stalled or overloaded, or does a firewall drop what we send?"
        elif "max number of clients" in said:
            advice = "raise its maxclients, or end clients that are not needed"
        elif _was_closed(chain):
            why = "it closed the connection"
            advice = (
                "it may want TLS: write rediss://; or it was ended: start it again"
                if where.startswith("redis:")
                else START
            )
    return StoreUnavailableError(f"no answer from the Redis server at {where} ({why}); {advice}")


def _was_closed(chain: list[BaseException]) -> bool:
    closed = (ConnectionResetError, BrokenPipeError)
    return any(isinstance(c, closed) or "closed by server" in str(c) for c in chain)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
