// One environment of CoreMachine in Azure: `azd up` makes it. The how-to page "Deploy with azd" explains the parameters.
targetScope = 'subscription'

import { queueNames, workerApp } from 'types.bicep'

@minLength(1)
@maxLength(40)
@description('The name of the azd environment, such as test or production. Each has resources of its own.')
param environmentName string

@minLength(1)
@description('The region of all resources. It must offer Flex Consumption.')
param location string

@description('The object id of whoever deploys: the administrator of the database.')
param principalId string

@description('The name of the same principal: a user principal name, or the display name of a service principal.')
param principalName string

@allowed(['User', 'ServicePrincipal', 'Group'])
@description('What the principal is.')
param principalType string = 'User'

@allowed(['small', 'medium', 'large'])
@description('How large the database, the namespace and the apps are. sizes.bicep says what each has.')
param size string = 'small'

@description('The real name of the jobs queue.')
param jobsQueue string = 'coremachine-jobs'

@description('The task queues: their real names by the logical names that handlers use.')
param taskQueues queueNames = { tasks: 'coremachine-tasks' }

@description('Apps that run tasks alone, each with the task queues that it reads. Without any, one app does everything.')
param workers workerApp[] = []

@description('Whether the database, the namespace and the storage can be reached through private endpoints only.')
param privateNetwork bool = false

@description('The address of the machine that migrates the database; empty for none. Of no use in a private network.')
param migratingAddress string = ''

@description('Where alerts go; empty for no alerts.')
param alertEmail string = ''

@minValue(0)
@description('The number of days after which ended jobs are deleted; 0 keeps them.')
param retentionDays int = 0

@description('More app settings, for every app.')
param settings object = {}

var token = take(uniqueString(subscription().id, environmentName, location), 8)

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: { 'azd-env-name': environmentName }
}

module environmentResources 'resources.bicep' = {
  name: 'resources'
  scope: group
  params: {
    tags: group.tags
    location: location
    prefix: 'cm-${token}'
    administrator: { id: principalId, name: principalName, type: principalType }
    size: size
    jobsQueue: jobsQueue
    taskQueues: taskQueues
    workers: workers
    privateNetwork: privateNetwork
    migratingAddress: migratingAddress
    alertEmail: alertEmail
    retentionDays: retentionDays
    settings: settings
  }
}

output AZURE_LOCATION string = location
output AZURE_RESOURCE_GROUP string = group.name
// What before_deploy.sh reads.
output DATABASE_HOST string = environmentResources.outputs.databaseHost
output DATABASE_ADMINISTRATOR string = principalName
output DATABASE_ROLES string = environmentResources.outputs.databaseRoles
output COREMACHINE_SCHEMA string = settings.?COREMACHINE_SCHEMA ?? 'app'
// For the command line.
output COREMACHINE_URL string = environmentResources.outputs.url
