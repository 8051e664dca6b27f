"""Values of a JSON object for a dataclass's fields, checked by the fields' annotations."""

from collections.abc import Mapping
from typing import Any, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type


def check_fields(values: Mapping[str, Any], fields_of: type) -> None:
    """Checks that each value is of its field's type, with all that it holds.

    Args:
        values: by name; those that are no field's are passed over. An integer is a float, too.
        fields_of: the dataclass.

    Raises:
        TypeError: one is of another type; the message names the first.
    """
    annotations = get_type_hints(fields_of)
    for name in values.keys() & annotations.keys():
        try:
            check_type(
                values[name],
                annotations[name],
                collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS,
            )
        except TypeCheckError as error:
            raise TypeError(f"{name} is {values[name]!r:.80}: {error}") from error
