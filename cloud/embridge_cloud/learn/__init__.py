"""The learning method: masked pre-training of each modality, alignment of EMG to a frozen pose space, evaluation."""
