"""Minutes on two CPU cores: recall, counting and real code at 512 tokens, cost up to 8,192.

Small enough to try an idea over a coffee, large enough that a window of 64 keys cannot hide: most
of the evidence in `mqar` and `code-defs` lies farther back than two such layers can reach, and
`frequent-words` and `code-names` are answered by all of the context at once. One task of each pair
is synthetic, the other is real code.

Version 4: counts lie closer together in `frequent-words` (`alpha` 0.3, not 0.5), so that the end of
a context tells less of which word leads in all of it: what a window counts was right in three of
four examples, too close to what globals that sum up count.
Version 3: three pairs in `mqar`, not eight: so few that who learns which values there are, and not
yet whose, is told from who learns nothing; how many pairs a state holds is asked in `standard`.
`code-names` took the place of `needle`, which ordered nine methods as `mqar` does (a correlation of
0.95). Cost is measured at half the width, in half the time.
Version 2: examples that end with questions end anywhere within the last 64 tokens of their context.
In version 1 each ended with it, and the last question stood on a token that was global to some
methods, in all examples. `code-defs` took the place of `code-lm`, in which 250 steps taught nobody
to look far.
"""

from lcbench.suite import CostPlan, ModelPlan, Suite, TaskPlan

CONTEXTS = (512, 1024, 2048)


def _plan(
    task: str,
    *,
    steps: int = 200,
    learning_rate: float = 1e-2,
    jitter: int = 64,
    test_tokens: int = 65_536,
    **config: str,
) -> TaskPlan:
    return TaskPlan(
        task=task,
        config=config,
        train_context=512,
        contexts=CONTEXTS,
        batch=8,
        steps=steps,
        learning_rates=(learning_rate,),
        ramp=4,
        jitter=jitter,
        test_tokens=test_tokens,
    )


SUITE = Suite(
    title="Two CPU cores, minutes",
    version=4,
    device_kind="cpu",
    dtype="float32",
    model=ModelPlan(d_model=64, num_layers=2, num_heads=2),
    tasks=(
        # Asked all over the context, so there is no end to move.
        _plan("mqar", jitter=0, num_pairs="3"),
        # One answer an example: as precise as the others where more examples are read.
        _plan(
            "frequent-words",
            steps=225,
            learning_rate=5e-3,
            test_tokens=131_072,
            num_words="12",
            alpha="0.3",
        ),
        _plan("code-defs", steps=250),
        _plan("code-names", learning_rate=5e-3, test_tokens=131_072, num_names="12"),
    ),
    cost=CostPlan(
        contexts=(512, 1024, 2048, 4096, 8192),
        d_model=128,
        num_heads=2,
        seconds=0.4,
    ),
    timeout_s=180.0,
)
