from muster import errors


def all_errors(base: type[errors.MusterError] = errors.MusterError) -> list[type[errors.MusterError]]:
    return [
        base,
        *(found for sub in base.__subclasses__() for found in all_errors(sub) if sub.__module__ == base.__module__),
    ]


def test_every_error_has_a_code_of_its_own_and_a_status() -> None:
    tree = all_errors()
    assert len({error.code for error in tree}) == len(tree)
    assert all(400 <= error.http_status < 600 for error in tree)


def test_only_what_may_pass_by_itself_is_retriable() -> None:
    assert all(error.http_status in {429, 502, 503, 504, 507} for error in all_errors() if error.retriable)


def test_an_error_renders_its_field_and_wait() -> None:
    error = errors.QueueFull("full", field="model", retry_after_s=1.5, policy_label="per-model")
    assert error.to_dict() == {
        "code": "queue_full",
        "message": "full",
        "retriable": True,
        "field": "model",
        "retry_after_ms": 1500,
        "policy_label": "per-model",
    }


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert all(error.__name__ in (errors.__doc__ or "") for error in all_errors())


def test_an_error_without_particulars_renders_three_fields() -> None:
    assert errors.NotFound("gone").to_dict() == {"code": "not_found", "message": "gone", "retriable": False}


def test_what_keeps_muster_from_starting_has_a_next_step() -> None:
    assert errors.SetupError("no room", next_step="make room").next_step == "make room"


def test_an_artifact_that_cannot_be_had_says_what_to_do_next() -> None:
    error = errors.ArtifactFailed("the host answers 403", next_step="set HF_TOKEN")
    assert (error.message, error.next_step) == ("the host answers 403", "set HF_TOKEN")
