"""Training that knows what a conversion will do: with fake quantization, with pruned or clustered weights.

TensorFlow's toolkit for it (tensorflow-model-optimization) takes Keras 2 models only: a model is rebuilt in tf_keras.
All of it runs in a child process: importing the toolkit changes what `tf.keras` is.
"""
