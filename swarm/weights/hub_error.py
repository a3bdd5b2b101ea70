"""What keeps a model on the Hub from us, in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from swarm.errors import MissingWeights
from swarm.weights.hub_id import HubId

INSTALL = "pip install '.[rig]'"
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@contextmanager
def in_our_words(hub: HubId) -> Iterator[None]:
    """Turn what huggingface_hub raises into MissingWeights, also that it is not installed."""
    model = hub.repo
    try:
        # HTTPError is httpx's or httpx2's, whichever this huggingface_hub is made with.
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]
    except ImportError:
        raise MissingWeights(f"there is no folder {model}, and fetching it from the Hub needs huggingface_hub: {INSTALL}") from None
    try:
        yield
    except HFValidationError:
        raise MissingWeights(f"there is no folder {model}, and no Hub id is like that: check the name") from None
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise MissingWeights(f"there is no folder {model}, and {_why(model, error)}") from None


def _why(model: str, error: BaseException) -> str:
    """From the first in the chain of causes that tells something."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return next((why for link in chain if (why := _told(model, link))), _unknown(error))


def _told(model: str, error: BaseException) -> str | None:
    from huggingface_hub import constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = constants.ENDPOINT
    match error:
        case OfflineModeIsEnabled():
            return "the Hub's cache here lacks it or parts of it while HF_HUB_OFFLINE is set: unset it, or fetch the model first"
        case GatedRepoError():
            return f"the Hub gives it only to those it knows: accept its terms at {endpoint}/{model}, then {LOG_IN}"
        case RepositoryNotFoundError():
            return f"the Hub has no model of that name, or it is private: check the name, or {LOG_IN}"
        case RevisionNotFoundError():
            return "the Hub has no such revision of it: check what stands behind the @"
        case HfHubHTTPError(response=response) if response.status_code in (401, 403):
            return f"the Hub does not let us have it (HTTP {response.status_code}): {LOG_IN}, with a token that may read it"
        case HfHubHTTPError(response=response) if response.status_code == 404:
            return f"the Hub has no {response.url.path.rpartition('/')[2]} of it: give a model with safetensors weights"
        case HfHubHTTPError(response=response):
            return f"the Hub at {endpoint} answers HTTP {response.status_code}: try again later"
        case LocalEntryNotFoundError():
            return None  # its cause says why
        case HTTPError():
            return f"the Hub at {endpoint} cannot be reached ({type(error).__name__}): check the network and the proxy"
        case OSError(strerror=str(reason)):
            return f"it cannot be kept in the Hub's cache ({reason}): make room, or give another folder with --cache or HF_HOME"
    return None


def _unknown(error: BaseException) -> str:
    reason = str(error).strip().split("\n")[0]
    return f"the Hub does not give it ({reason}): check the name, the network and HF_TOKEN"
