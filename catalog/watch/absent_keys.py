"""Images without a key, and why they have none."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from catalog.database import Connection
from catalog.keys import Keys
from catalog.store import Store
from catalog.views import erasures, losses
from catalog.views.losses import AcceptedLoss
from catalog.watch.losses import keys_missing
from contracts.errors import Lost
from contracts.ids import ImageId


@dataclass(frozen=True)
class AbsentKeys:
    """Why images have no key: they were erased, or its loss was accepted, or it is missing and nobody knows why."""

    erased: frozenset[str] = frozenset()
    accepted: tuple[AcceptedLoss, ...] = ()
    missing: frozenset[ImageId] = frozenset()

    def require(self) -> None:
        """KeyMissing: a key is missing. Lost: the loss of a key was accepted."""
        self.refuse_missing()
        for loss in self.accepted:
            raise Lost(f"the key of image {loss.id} is {loss.describe()}", image=loss.id)

    def refuse_missing(self) -> None:
        """KeyMissing: a key is missing whose loss was not accepted."""
        if self.missing:
            raise keys_missing(self.missing)

    def among(self, images: Container[ImageId]) -> "AbsentKeys":
        """The same, but losses are accepted only of these images' keys."""
        return replace(self, accepted=tuple(loss for loss in self.accepted if loss.id in images))


async def keys_of(store: Store, keys: Keys, images: Iterable[ImageId]) -> tuple[dict[ImageId, bytes], AbsentKeys]:
    """The keys of these images, and why the others have none."""
    ids = list(images)
    found = await keys.keys_of(ids)
    return found, await _explain(store, keys, set(ids) - found.keys())


async def _explain(store: Store, keys: Keys, absent: set[ImageId]) -> AbsentKeys:
    if not absent:
        return AbsentKeys()

    def read(connection: Connection) -> tuple[set[str], dict[str, AcceptedLoss]]:
        return erasures.erased_among(connection, absent), losses.accepted_keys(connection, absent)

    erased, accepted = await store.read(read)
    erased |= await keys.erased_among(absent)
    kept = tuple(loss for image, loss in accepted.items() if image not in erased)
    return AbsentKeys(frozenset(erased), kept, frozenset(absent - erased - accepted.keys()))
