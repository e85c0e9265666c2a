from muster.domain.model import Model
from muster.errors import ModelNotFound, MusterError, NoWorker, PoolNotFound, PoolNotReady
from muster.placement.candidate import Candidate
from muster.placement.choose import eligible
from muster.placement.refusal import no_candidate_error, what_there_is
from muster.placement.wish import Wish
from tests.unit.placement.makers import candidate


def refusal(wish: Wish, *candidates: Candidate) -> MusterError:
    return no_candidate_error(wish, eligible(wish, candidates).rejections)


def test_a_model_nobody_has_is_not_found_and_the_nearest_name_is_told():
    error = refusal(Wish(model="lama3:latest"), candidate("a", "llama3", "phi4"), candidate("b", "phi4", draining=True))
    assert isinstance(error, ModelNotFound)
    assert error.field == "model"
    assert error.message == "no worker has a model 'lama3:latest'; did you mean 'llama3'? There are: llama3, phi4"


def test_several_names_that_are_near_are_told_the_nearest_first():
    error = refusal(Wish(model="qwen-8b"), candidate("a", "qwen-80b", "qwen-8b-q4", "phi4"))
    assert "; did you mean 'qwen-80b' or 'qwen-8b-q4'? There are: phi4," in error.message


def test_where_there_is_no_model_at_all_that_is_told():
    assert what_there_is("m", []) == "; there is none yet"


def test_a_name_that_is_near_nothing_gets_the_list_alone():
    error = refusal(Wish(model="zzz"), candidate("a", "llama3"))
    assert error.message == "no worker has a model 'zzz'. There are: llama3"


def test_a_long_list_of_models_is_cut():
    names = [f"model-{number:02}" for number in range(12)]
    error = refusal(Wish(model="zzz"), candidate("a", *names))
    assert error.message.endswith("model-08, model-09, and 2 more")


def test_a_fleet_without_any_model_says_so():
    error = refusal(Wish(model="m"), candidate("a"))
    assert isinstance(error, ModelNotFound)
    assert error.message == "no worker has a model 'm', and none that offers completion is there"


def test_a_model_that_cannot_do_what_is_asked_is_told_apart_from_a_missing_one():
    embedder = Model(name="e", capabilities=("embedding",))
    error = refusal(Wish(model="m", capability="embedding"), candidate("a", "m"), candidate("b", embedder))
    assert isinstance(error, ModelNotFound)
    assert error.message == "the model 'm' does not offer embedding. There are: e"


def test_a_model_whose_workers_are_all_away_is_worth_another_try_and_each_has_its_reason():
    error = refusal(
        Wish(model="m"), candidate("a", "m", draining=True), candidate("b", "m", late=True), candidate("c", "n")
    )
    assert isinstance(error, NoWorker)
    assert error.retriable
    assert error.message == "no worker can serve m now: a/llama is draining; b/llama has missed heartbeats"
    assert error.data == {"reasons": ["a/llama is draining", "b/llama has missed heartbeats"]}


def test_a_wish_without_a_model_names_what_it_is_for():
    error = refusal(Wish(), candidate("a", "m", draining=True))
    assert error.message == "no worker can serve completion now: a/llama is draining"


def test_an_empty_fleet_does_not_know_that_a_model_does_not_exist():
    error = refusal(Wish(model="m"))
    assert isinstance(error, NoWorker)
    assert error.message == "no worker is in the fleet yet: start an agent, or wait until it has registered"


def test_many_reasons_are_cut():
    error = refusal(Wish(model="m"), *(candidate(f"n{number:02}", "m", draining=True) for number in range(11)))
    assert error.message.endswith("; and 1 more")
    assert len(error.data["reasons"]) == 10


def test_a_pool_that_nobody_is_in_is_not_found_whatever_else_fits():
    error = refusal(Wish(model="m", pool="night"), candidate("a", "m", pool="day"))
    assert isinstance(error, PoolNotFound)
    assert error.field == "pool"
    assert "'night'" in error.message


def test_a_pool_whose_workers_are_all_away_is_not_ready_and_says_why():
    error = refusal(Wish(model="m", pool="day"), candidate("a", "m", pool="day", draining=True), candidate("b", "m"))
    assert isinstance(error, PoolNotReady)
    assert error.message == "the pool 'day' takes no work now: a/llama is draining"
    assert error.data == {"reasons": ["a/llama is draining"]}


def test_a_pool_that_lacks_what_is_asked_is_not_blamed_for_itself():
    error = refusal(Wish(model="m", pool="day"), candidate("a", "n", pool="day"), candidate("b", "m"))
    assert isinstance(error, NoWorker)
    assert not isinstance(error, PoolNotFound | PoolNotReady)
