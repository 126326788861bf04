"""Sessions out of the store and into it: EMG-BIDS, emg2pose, Parquet, NinaPro, XDF."""
