// The types of parameters.

@export()
@description('Real names of queues by their logical names.')
type queueNames = {
  *: string
}

@export()
@description('An app that runs tasks.')
type workerApp = {
  @description('The name of the service in azure.yaml that has its code.')
  service: string
  @description('Logical names of the task queues that it reads.')
  queues: string[]
  @description('The memory of one instance in megabytes: 512, 2048 or 4096. Default: as the size says.')
  instanceMemory: int?
  @description('The largest number of instances. Default: as the size says.')
  maximumInstances: int?
}

@export()
@description('Who may do everything in the database.')
type administratorPrincipal = {
  id: string
  name: string
  type: 'User' | 'ServicePrincipal' | 'Group'
}

@export()
@description('What one app is.')
type appShape = {
  service: string
  @description('COREMACHINE_APP_MODE: standalone, platform or worker.')
  mode: string
  @description('Logical names of the task queues that it reads.')
  queues: string[]
  @description('How many functions of it are triggered by a queue.')
  queueFunctions: int
  instanceMemory: int
  maximumInstances: int
}
