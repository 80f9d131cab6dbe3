"""One GPU: recall over long distances and real text, trained at 512 to 2,048, cost up to 131,072.

Every method gets the same three learning rates, chosen on validation, and three seeds.
"""

from lcbench.suite import CostPlan, ModelPlan, Suite, TaskPlan

LEARNING_RATES = (1e-3, 3e-3, 1e-2)

SUITE = Suite(
    title="One GPU, hours",
    version=1,
    device_kind="cuda",
    dtype="bfloat16",
    model=ModelPlan(d_model=128, num_layers=4, num_heads=4),
    tasks=(
        TaskPlan(
            task="mqar",
            config={"num_pairs": "32", "vocab_size": "1024"},
            train_context=1024,
            contexts=(1024, 2048, 4096, 8192),
            batch=64,
            steps=1000,
            learning_rates=LEARNING_RATES,
            ramp=3,
            test_tokens=524_288,
        ),
        TaskPlan(
            task="code-lm",
            train_context=2048,
            contexts=(2048, 4096, 8192, 16_384),
            batch=32,
            steps=1000,
            learning_rates=LEARNING_RATES,
            ramp=2,
            test_tokens=524_288,
        ),
    ),
    cost=CostPlan(
        contexts=(1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072),
        d_model=1024,
        num_heads=16,
    ),
    seeds=(0, 1, 2),
    threads=4,
    timeout_s=600.0,
)
