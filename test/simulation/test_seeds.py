import pytest

from bevformer_ros.simulation.seeds import EVALUATION_SEEDS, require_training_seeds


@pytest.mark.parametrize("seeds", [[], [0, 8999], range(10000, 10010), range(9000)])
def test_other_seeds_may_be_learned_from(seeds):
    require_training_seeds(seeds)


@pytest.mark.parametrize(("seeds", "named"), [([9000], 9000), (range(9500), 9000), ([3, 9999, 9998], 9998)])
def test_reserved_seeds_are_refused_by_name(seeds, named):
    with pytest.raises(ValueError, match=f"seed {named} is reserved for evaluation, as all of 9000 to 9999"):
        require_training_seeds(seeds)


def test_there_are_enough_worlds_to_judge_by():
    assert len(EVALUATION_SEEDS) == 1000
