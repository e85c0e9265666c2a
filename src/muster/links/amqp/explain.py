"""Why the broker cannot be used, in words for the person who reads the log, and what he can do."""

import ssl

from aiormq import exceptions

from muster.errors import MusterError, SetupError
from muster.links.amqp.address import BrokerAddress


def explain(error: Exception, address: BrokerAddress) -> tuple[str, str]:
    """Return the problem and the next step; neither holds the password."""
    match error:
        case SetupError():
            return error.message, error.next_step
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return (
                f"{address} refuses the login of {address.user!r}",
                f"correct user and password in RABBITMQ_URL, or let {address.user!r} in: "
                f"rabbitmqctl set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'",
            )
        case exceptions.InvalidFrameError() if "Connection.OpenOk" in str(error):
            return _no_vhost(address)  # the client library's words for a refused vhost
        case exceptions.ChannelAccessRefused():
            return (
                f"{address} lets {address.user!r} in, but not declare or use what a fleet needs: {words(error)}",
                f"rabbitmqctl set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'",
            )
        case exceptions.ChannelPreconditionFailed():
            return (
                f"{address} has something of the same name that was declared otherwise: {words(error)}",
                "delete it at the broker; it is made anew at the next attempt",
            )
        case TimeoutError():
            return f"{address} does not answer", "see whether that host and port are the broker's, and whether it runs"
        case MusterError():
            return error.message, "see the broker's own log"
    if isinstance(error.__cause__, ssl.SSLError):
        return (
            f"{address} shows a certificate that is not trusted: {words(error.__cause__)}",
            "name the certificates that signed it: MUSTER_CA_FILE",
        )
    return (
        f"{address} cannot be reached: {words(error)}",
        "see whether RABBITMQ_URL names the broker, and whether it runs",
    )


def words(error: BaseException) -> str:
    """Return an error's own words without the wrapping of the client library."""
    if isinstance(error, exceptions.AMQPError):
        told = [str(part) for part in error.args if isinstance(part, str)]
        return "; ".join(told) or type(error).__name__
    return str(error) or type(error).__name__


def _no_vhost(address: BrokerAddress) -> tuple[str, str]:
    return (
        f"{address} has no vhost {address.vhost!r}, or {address.user!r} may not use it",
        f"make it once at the broker: rabbitmqctl add_vhost {address.vhost} && "
        f"rabbitmqctl set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'",
    )
