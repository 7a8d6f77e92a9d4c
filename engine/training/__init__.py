"""The recipe of the shipped models: from a corpus manifest to published weights, one command a stage.

    python -m engine.training STAGE --size cpu|gpu --corpus DIR --cache DIR --run DIR [--resume] [--set publish=true]

in this order: `align`, `content`, `speaker`, `decoder`, `voices`; `separator` stands by itself. On several GPUs of one
host start it by `torchrun --nproc-per-node N -m engine.training ...`. TensorBoard opens the run folders.
"""
