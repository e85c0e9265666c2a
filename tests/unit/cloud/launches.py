from muster.domain.machine import Launch

LAUNCH = Launch(
    token="t-1",
    fleet="lab",
    name="worker",
    machine_type="g6.xlarge",
    image="ami-0abcdef1234567890",
    models=("qwen",),
    owner="ada",
)
