"""Minutes on two CPU cores: recall, counting and real code at 512 tokens, cost up to 8,192.

Small enough to try an idea over a coffee, large enough that a window of 64 keys cannot hide: most
of the evidence in `mqar`, `needle` and `code-defs` lies farther back than two such layers can
reach, and `frequent-words` is answered by all of the context at once.

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
    )


SUITE = Suite(
    title="Two CPU cores, minutes",
    version=2,
    device_kind="cpu",
    dtype="float32",
    model=ModelPlan(d_model=64, num_layers=2, num_heads=2),
    tasks=(
        # Asked all over the context, so there is no end to move.
        _plan("mqar", jitter=0),
        _plan("needle"),
        _plan("frequent-words", steps=300, learning_rate=5e-3, num_words="12", alpha="0.5"),
        _plan("code-defs", steps=250),
    ),
    cost=CostPlan(
        contexts=(512, 1024, 2048, 4096, 8192),
        d_model=256,
        num_heads=4,
        seconds=0.4,
    ),
    timeout_s=180.0,
)
