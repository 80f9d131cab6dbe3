"""One GPU, hours: needles and real text scored up to a million tokens, and what those cost.

A draft: no cell of it has been run on a GPU, and neither task has passed the gate at these budgets.

Models are trained at 4,096 tokens and read up to 256 times as many in pieces, carrying their state,
so that memory is bounded by the state: a method of constant state needs no more at a million tokens
than at 16,384. Full attention keeps every key; where its time or memory ends, its rows say
`timeout` or `oom`, and the shorter contexts keep their scores. `code-lm` ends at 524,288 tokens
because the test files of the standard library hold some three million. A cell is estimated to take
5 to 15 minutes on an H100, most of it full attention's scoring at the longest context.
"""

from lcbench.suite import CostPlan, ModelPlan, Suite, TaskPlan

CONTEXTS = (4096, 16_384, 65_536, 131_072, 262_144, 524_288)
LEARNING_RATES = (1e-3, 3e-3, 1e-2)

SUITE = Suite(
    title="One GPU, to a million tokens; a draft",
    version=0,
    device_kind="cuda",
    dtype="bfloat16",
    model=ModelPlan(d_model=256, num_layers=4, num_heads=4),
    tasks=(
        TaskPlan(
            task="needle",
            config={"num_needles": "8", "vocab_size": "128"},
            train_context=4096,
            contexts=(*CONTEXTS, 1_048_576),
            batch=16,
            steps=2000,
            learning_rates=LEARNING_RATES,
            ramp=6,
            jitter=64,
            test_tokens=1_048_576,
        ),
        TaskPlan(
            task="code-lm",
            train_context=4096,
            contexts=CONTEXTS,
            batch=16,
            steps=2000,
            learning_rates=LEARNING_RATES,
            ramp=2,
            test_tokens=1_048_576,
        ),
    ),
    cost=CostPlan(
        contexts=(*CONTEXTS, 1_048_576),
        d_model=512,
        num_heads=8,
    ),
    threads=4,
    timeout_s=1800.0,
)
