"""Minutes on two CPU cores: recall, counting and real text at 512 tokens, cost up to 8,192.

Small enough to try an idea over a coffee, large enough that a window of 64 keys cannot hide: most
of the evidence in `mqar` and `needle` lies farther back than two such layers can reach, and
`frequent-words` is answered by all of the context at once.
"""

from lcbench.suite import CostPlan, ModelPlan, Suite, TaskPlan

CONTEXTS = (512, 1024, 2048)

SUITE = Suite(
    title="Two CPU cores, minutes",
    version=1,
    device_kind="cpu",
    dtype="float32",
    model=ModelPlan(d_model=64, num_layers=2, num_heads=2),
    tasks=(
        TaskPlan(
            task="mqar",
            train_context=512,
            contexts=CONTEXTS,
            batch=8,
            steps=200,
            learning_rates=(1e-2,),
            ramp=4,
        ),
        TaskPlan(
            task="needle",
            train_context=512,
            contexts=CONTEXTS,
            batch=8,
            steps=200,
            learning_rates=(1e-2,),
            ramp=4,
        ),
        TaskPlan(
            task="frequent-words",
            config={"num_words": "12", "alpha": "0.5"},
            train_context=512,
            contexts=CONTEXTS,
            batch=8,
            steps=200,
            learning_rates=(5e-3,),
            ramp=4,
        ),
        TaskPlan(
            task="code-lm",
            train_context=512,
            contexts=CONTEXTS,
            batch=8,
            steps=250,
            learning_rates=(5e-3,),
            ramp=2,
        ),
    ),
    cost=CostPlan(
        contexts=(512, 1024, 2048, 4096, 8192),
        d_model=256,
        num_heads=4,
        seconds=0.4,
    ),
    timeout_s=180.0,
)
