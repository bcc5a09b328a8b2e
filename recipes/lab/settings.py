"""Settings of the lab's base model (torch-free)."""

from prosocial.core.settings import Settings


class BaseTraining(Settings):
    """The size of the model and the settings of its training.

    Attributes:
        hidden_size: hidden size, a multiple of 32.
        layers: number of layers.
        vocabulary_size: size of the tokenizer's vocabulary.
        initializer_range: standard deviation of the initial weights.
        steps: number of optimizer steps.
        batch_size: conversations per step, all of similar length.
        learning_rate: peak learning rate of AdamW.
        matrix_learning_rate: peak learning rate of Muon.
        prompt_weight: weight of a prompt token's loss; that of a reply token is 1.
    """

    hidden_size: int = 96
    layers: int = 3
    vocabulary_size: int = 640
    initializer_range: float = 0.06
    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 4e-3
    matrix_learning_rate: float = 0.02
    prompt_weight: float = 0.3
