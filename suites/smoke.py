"""Seconds on any machine: every code path of a run, on budgets too small to mean anything."""

from lcbench.suite import CostPlan, ModelPlan, Suite, TaskPlan

SUITE = Suite(
    title="Does it run at all? Seconds; scores mean nothing",
    version=1,
    device_kind="cpu",
    dtype="float32",
    model=ModelPlan(d_model=16, num_layers=1, num_heads=2),
    tasks=(
        TaskPlan(
            task="mqar",
            config={"num_pairs": "2", "vocab_size": "16"},
            train_context=32,
            contexts=(32, 64),
            batch=4,
            steps=10,
            learning_rates=(1e-2,),
            ramp=1,
            test_tokens=512,
        ),
        TaskPlan(
            task="code-lm",
            train_context=32,
            contexts=(32, 64),
            batch=4,
            steps=5,
            learning_rates=(1e-2,),
            test_tokens=512,
        ),
    ),
    cost=CostPlan(contexts=(128,), d_model=16, num_heads=2, seconds=0.01),
    timeout_s=60.0,
)
