"""Why the broker cannot be used, in words for the person who reads the log, and what he can do."""

import ssl

from aiormq import exceptions

from muster.errors import MusterError
from muster.links.amqp.address import BrokerAddress


def explain(error: Exception, address: BrokerAddress) -> tuple[str, str]:
    """Return the problem and the next step; neither holds the password."""
    permit = f"rabbitmqctl set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'"
    problem = f"{address} cannot be reached: {words(error)}"
    next_step = "see whether RABBITMQ_URL names the broker, and whether it runs"
    match error:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            problem = f"{address} refuses the login of {address.user!r}"
            next_step = "correct user and password in RABBITMQ_URL"
        case exceptions.InvalidFrameError() if "Connection.OpenOk" in str(error):  # how the library tells it
            problem = f"{address} has no vhost {address.vhost!r}, or {address.user!r} may not use it"
            next_step = f"make it once at the broker: rabbitmqctl add_vhost {address.vhost} && {permit}"
        case exceptions.ChannelAccessRefused():
            problem = f"{address} lets {address.user!r} in, but not declare or use what a fleet needs: {words(error)}"
            next_step = permit
        case exceptions.ChannelPreconditionFailed():
            problem = f"{address} has something of the same name that was declared otherwise: {words(error)}"
            next_step = "delete it at the broker; it is made anew at the next attempt"
        case TimeoutError():
            problem = f"{address} does not answer"
            next_step = "see whether that host and port are the broker's, and whether it runs"
        case _ if isinstance(error.__cause__, ssl.SSLError):
            problem = f"{address} shows a certificate that is not trusted: {words(error.__cause__)}"
            next_step = "name the certificates that signed it: MUSTER_CA_FILE"
        case MusterError():
            problem, next_step = error.message, "see the broker's own log"
    return problem, next_step


def words(error: BaseException) -> str:
    """Return an error's own words without the wrapping of the client library."""
    if isinstance(error, exceptions.AMQPError):
        told = [str(part) for part in error.args if isinstance(part, str)]
        return "; ".join(told) or type(error).__name__
    return str(error) or type(error).__name__
